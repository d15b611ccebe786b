"""What every service of the compose files has."""

import pytest


@pytest.fixture(scope="session")
def assert_locked_down():
    """Checks a service: read-only, no root, no privileges, limits on what it may use."""

    def check(service):
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["user"].split(":")[0]) > 0
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
        assert not {"privileged", "network_mode", "pid", "ipc", "cap_add"} & set(service)

    return check
