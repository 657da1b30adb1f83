"""The whole matrix of the fault lab, its waits compressed by settings: a relay process,
loopback upstreams on the vendors' wires, and a judge for every cell. `make faults` plays
it with real waits."""

from __future__ import annotations

import asyncio

import pytest

from faults.lab import FAULTS, Report, choose, run
from faults.matrix import TRANSPORTS, VENDORS, compressed

ALLOWANCE = 20.0
"""Seconds that a crowded machine may add to any bound."""


@pytest.fixture(scope="module")
def report() -> Report:
    return asyncio.run(run(choose(), compressed(allowance=ALLOWANCE)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", [fault.key for fault in FAULTS])
def test_the_fault_is_survived_on_every_wire_and_transport(report: Report, fault: str) -> None:
    results = [result for result in report.results if result.fault == fault]
    played = {(result.vendor, result.transport) for result in results}
    (vendors,) = (each.vendors for each in FAULTS if each.key == fault)
    assert played == {(vendor, transport) for vendor in vendors for transport in TRANSPORTS}
    missed = [f"{r.vendor} {r.transport}: {'; '.join(r.misses)}" for r in results if not r.passed]
    assert not missed, "\n".join(missed)


def test_the_relays_log_holds_no_trace_of_a_defect(report: Report) -> None:
    assert not report.defects


def test_every_fault_up_to_f24_is_in_the_matrix() -> None:
    assert {fault.number for fault in FAULTS} == {f"F{n:02}" for n in range(1, 25)}
    assert {vendor for fault in FAULTS for vendor in fault.vendors} == set(VENDORS)
