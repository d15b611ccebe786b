"""Cores: those that may be used, divided among processes."""

import os

import pytest

from trainers.process import cores


@pytest.mark.parametrize("processes", [1, 2, 7, 8])
def test_cores_are_divided(monkeypatch, processes):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 1, 9, 0, 4, 2, 3}, raising=False)
    assert cores.allowed() == [0, 1, 2, 3, 4, 5, 9]
    assert cores.threads_of_each(processes) == {1: 7, 2: 3, 7: 1, 8: 1}[processes]


def test_a_system_that_does_not_say_which(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.allowed() == [0]
