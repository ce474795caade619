"""Sending phones out, and measuring who worked for them."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import usage
from bench.house import ROOT, BenchFailed, House, Server


@dataclass(frozen=True, slots=True)
class Walked:
    """What a crowd of phones got done, and the CPU it took of each process, in ms."""

    flows: int
    seconds: float
    failures: int
    latencies: Mapping[str, Mapping[str, float]]
    server_cpu_ms: float
    postgresql_cpu_ms: float | None
    redis_cpu_ms: float | None
    partner_cpu_ms: float | None
    client_cpu_ms: float

    @property
    def flows_per_second(self) -> float:
        return self.flows / self.seconds

    @property
    def server_cpu_per_flow(self) -> float:
        return self.server_cpu_ms / self.flows


@dataclass(frozen=True, slots=True)
class Plan:
    """How phones walk. `rate` is the flows begun a second, 0 for as many as there are phones."""

    walk: str
    phones: int
    flows: int
    seconds: float
    operations: Mapping[str, str]
    workflow: str = ""
    steps: Sequence[str] = ()
    context_bytes: int = 0
    rate: float = 0
    person: str = ""
    method: str = "POST"
    path: str = "/graphql"
    headers: Sequence[str] = ()


def send_out(house: House, server: Server, plan: Plan, *, partner: Server | None = None) -> Walked:
    """Let the phones of the plan walk. Raises BenchFailed when most of them failed."""
    content = {name: getattr(plan, name) for name in Plan.__slots__}
    content["address"] = ["127.0.0.1", server.port]
    content["headers"] = plan.headers or [
        f"Authorization: Bearer {house.token(f'user-{number}')}" for number in range(plan.phones)
    ]
    watched = {
        "server": server.pid,
        "postgresql": house.stores.postgresql_pid,
        "redis": house.stores.redis_pid,
        "partner": partner.pid if partner else None,
    }
    before = {name: usage.cpu_ms(pid) for name, pid in watched.items() if pid}
    done = subprocess.run(
        [sys.executable, "-m", "bench.phones"],
        input=json.dumps(content),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=plan.seconds + 90,
    )
    after = {name: usage.cpu_ms(pid) for name, pid in watched.items() if pid}
    if done.returncode != 0:
        raise BenchFailed(f"the phones failed: {done.stderr.strip()[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    if not told["flows"]:
        raise BenchFailed(f"no flow ended: {told['first_failures']}")
    used = {name: after[name] - before[name] for name in after}
    return Walked(
        flows=told["flows"],
        seconds=told["seconds"],
        failures=told["failures"],
        latencies=told["latencies"],
        server_cpu_ms=used["server"],
        postgresql_cpu_ms=used.get("postgresql"),
        redis_cpu_ms=used.get("redis"),
        partner_cpu_ms=used.get("partner"),
        client_cpu_ms=told["cpu_ms"],
    )
