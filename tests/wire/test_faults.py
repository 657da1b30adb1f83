"""The whole matrix of the fault lab, its waits compressed by settings: a relay process,
loopback upstreams on the vendors' wires, and a judge for every cell. `make faults` plays
it with real waits."""

from __future__ import annotations

import asyncio

import pytest

from lab.faults.matrix import TRANSPORTS, VENDORS, compressed
from lab.faults.run import FAULTS, Report, choose, run

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


def test_every_fault_up_to_f24_and_of_the_field_is_in_the_matrix() -> None:
    listed = {f"F{n:02}" for n in range(1, 25)}, {f"V{n:02}" for n in range(1, 16)}
    assert {fault.number for fault in FAULTS} == set().union(*listed)
    for numbers in listed:
        faults = [fault for fault in FAULTS if fault.number in numbers]
        assert {vendor for fault in faults for vendor in fault.vendors} == set(VENDORS)


def test_a_field_fault_is_left_out_only_where_its_wire_cannot_have_it() -> None:
    left_out = {f.key: set(VENDORS) - set(f.vendors) for f in FAULTS if f.key.startswith("V")}
    assert {key: vendors for key, vendors in left_out.items() if vendors} == {
        "V11": {"claude", "gemini"},
        "V12": {"gemini"},
    }
