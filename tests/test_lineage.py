"""Which line the next backup belongs to, when a run was killed before it noted what it had committed."""

from dataclasses import replace

from edgedr.model import SCHEMA
from edgedr.state import State, next_state
from tests.test_chains import manifest


def test_a_run_that_was_killed_after_its_commit_keeps_its_lineage() -> None:
    """What was committed and not noted counts: the next backup goes on in the new line, not in the one before it."""
    remembered = State(SCHEMA, "old", 5, None)
    newest = replace(manifest(6), lineage="new")
    state, odd = next_state(remembered, newest, 6, None)
    assert (state.lineage, state.sequence, odd) == ("new", 7, None)


def test_a_lineage_that_was_noted_later_counts() -> None:
    """After a restore the state directory begins a new line, whatever the newest backup says."""
    newest = replace(manifest(6), lineage="new")
    state, _ = next_state(State(SCHEMA, "begun anew", 6, None), newest, 6, None)
    assert state.lineage == "begun anew"
