"""Files of containers as the kernel makes them, in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metering.cgroup import CgroupFiles

ID = "4e191468dbe9a72098f9cb0ec90ac833100da72139df34c81b64988316d4edb6"
OTHER_ID = "8fddaef89b849afe74ab552596d72e114b73e64542c5fd491453aee58034db18"
PID = 4242
CGROUPFS = "docker/{}"
SYSTEMD = "system.slice/docker-{}.scope"
ELSEWHERE = "tenants.slice/tenants-7.slice/docker-{}.scope"
HEADINGS = "Inter-|   Receive      |  Transmit\n face |bytes    packets|bytes    packets\n"


def net_dev(**interfaces: tuple[int, int]) -> str:
    lines = (
        f"{name:>6}: {rx} {' '.join('0' * 7)} {tx} {' '.join('0' * 7)}\n"
        for name, (rx, tx) in interfaces.items()
    )
    return HEADINGS + "".join(lines)


V1_FILES = {
    "cpuacct/{}/cpuacct.usage": "770000123\n",
    "memory/{}/memory.usage_in_bytes": "614400\n",
    "memory/{}/memory.stat": "cache 5\ninactive_file 999\ntotal_inactive_file 14400\ntotal_x 1\n",
    "blkio/{}/blkio.throttle.io_service_bytes": (
        "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 8192\n8:0 Total 12288\n8:16 Read 1000\n"
        "Total 13288\n"
    ),
}
V2_FILES = {
    "{}/cpu.stat": "usage_usec 770000\nuser_usec 1\n",
    "{}/memory.current": "614400\n",
    "{}/memory.stat": "anon 1\ninactive_file 14400\nactive_file 2\n",
    "{}/io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1\n8:16 rbytes=1000 wbytes=0 rios=1\n",
}


@dataclass
class Tree:
    """A machine's files of containers."""

    root: Path
    files: dict[str, str]

    def __post_init__(self) -> None:
        self.cgroup.mkdir(parents=True)
        self.proc.mkdir()
        if self.files is V2_FILES:
            (self.cgroup / "cgroup.controllers").write_text("cpu io memory\n")
        self.write_process("1", "init.scope", net_dev(eth0=(10**9, 10**9)))

    @property
    def cgroup(self) -> Path:
        return self.root / "cgroup"

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    def add(
        self,
        container_id: str = ID,
        *,
        group: str = CGROUPFS,
        pid: int = PID,
        instead: Mapping[str, str | None] | None = None,
    ) -> None:
        """Write a container's files; `instead` has other contents by name, None for no file."""
        own_group = group.format(container_id)
        for template, content in self.files.items():
            path = self.cgroup / template.format(own_group)
            text = (instead or {}).get(path.name, content)
            if text is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self.write_process(str(pid), own_group, net_dev(lo=(9, 9), eth0=(1042, 7)))

    def write_process(self, pid: str, group: str, network: str) -> None:
        folder = self.proc / pid / "net"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dev").write_text(network)
        (folder.parent / "comm").write_text("sleep\n")
        (folder.parent / "cgroup").write_text(f"4:memory:/{group}\n2:cpuacct:/{group}\n")

    def remove_group(self, container_id: str = ID) -> None:
        for folder in self.cgroup.rglob(f"*{container_id}*"):
            shutil.rmtree(folder)

    def open(self) -> CgroupFiles:
        return CgroupFiles(self.cgroup, self.proc)
