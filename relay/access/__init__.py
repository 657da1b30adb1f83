"""Access control: the checks that every request passes before an edge sees it."""
