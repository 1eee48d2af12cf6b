"""
Stand-ins for PTZJEPA's classes, written from the facts of their interfaces: same keys, same steps.
"""

from __future__ import annotations

import subprocess
import time
import uuid
from pathlib import Path

import redis

#: PTZJEPA's own pause between two attempts.
RETRY_S = 0.1


class UnchangedLockers:
    """`MultiLockerSystem` as it is: SET NX EX to take, WATCH GET MULTI DEL EXEC to free."""

    def __init__(
        self,
        redis_host: str,
        redis_port: int,
        redis_password: str | None,
        locker_prefix: str,
        num_lockers: int,
        expire_in_sec: int = 1800,
        acquire_timeout: float = 10,
    ) -> None:
        self.redis = redis.Redis(host=redis_host, port=redis_port, password=redis_password, db=0)
        self.identifier = str(uuid.uuid4())
        self.locker_prefix, self.num_lockers = locker_prefix, num_lockers
        self.expire_in_sec, self.acquire_timeout = expire_in_sec, acquire_timeout
        self.retry_s = RETRY_S
        self.refused = 0

    def acquire_locker(self, locker_num: int) -> int | None:
        name = f"{self.locker_prefix}:{locker_num}"
        deadline = time.time() + self.acquire_timeout
        while time.time() < deadline:
            if self.redis.set(name, self.identifier, nx=True, ex=self.expire_in_sec):
                return locker_num
            self.refused += 1
            time.sleep(self.retry_s)
        return None

    def release_locker(self, locker_num: int) -> bool:
        name = f"{self.locker_prefix}:{locker_num}"
        with self.redis.pipeline() as pipeline:
            try:
                pipeline.watch(name)  # type: ignore[no-untyped-call]  # redis-py types it not
                value = pipeline.get(name)
                if value != self.identifier.encode():
                    return False
                pipeline.multi()
                pipeline.delete(name)
                pipeline.execute()
            except redis.WatchError:
                return False
        return True


class OlderLockers:
    """Its older form: whichever locker is free, by SETNX and then EXPIRE."""

    def __init__(
        self,
        redis_host: str,
        redis_port: int,
        redis_password: str | None,
        locker_prefix: str,
        num_lockers: int,
        expire_in_sec: int = 10,
    ) -> None:
        self.redis = redis.Redis(host=redis_host, port=redis_port, password=redis_password, db=0)
        self.identifier = str(uuid.uuid4())
        self.locker_prefix, self.num_lockers = locker_prefix, num_lockers
        self.expire_in_sec = expire_in_sec

    def acquire_locker(self) -> int | None:
        deadline = time.time() + self.expire_in_sec
        while time.time() < deadline:
            for number in range(self.num_lockers):
                name = f"{self.locker_prefix}:{number}"
                if self.redis.setnx(name, self.identifier):
                    self.redis.expire(name, self.expire_in_sec)
                    return number
            time.sleep(RETRY_S)
        return None


class NewMounter:
    """`SSHFSMounter`, newer form: starts sshfs, waits, and looks whether something is mounted."""

    options: tuple[str, ...] = ()

    def __init__(
        self,
        host_username: str,
        host_ip: str,
        host_data_directory: str,
        local_data_directory: str,
        identity_file: str = "/root/.ssh/id_rsa",
    ) -> None:
        self.source = f"{host_username}@{host_ip}:{host_data_directory}"
        self.local_data_directory = local_data_directory
        self.identity_file = identity_file

    def mount(self) -> bool:
        Path(self.local_data_directory).mkdir(parents=True, exist_ok=True)
        identity = f"IdentityFile={self.identity_file}"
        argv = ["sshfs", self.source, self.local_data_directory, "-o", identity]
        done = subprocess.run([*argv, *self.options], check=False, capture_output=True, timeout=30)
        return done.returncode == 0 and self.verify_mount()

    def unmount(self) -> bool:
        argv = ["fusermount", "-u", self.local_data_directory]
        return subprocess.run(argv, check=False, capture_output=True, timeout=30).returncode == 0

    def verify_mount(self) -> bool:
        return subprocess.call(["mountpoint", "-q", self.local_data_directory]) == 0


class OldMounter:
    """`SSHFSMounter`, older form: one shell command, and an unmount that tells nothing."""

    options: tuple[str, ...] = ()

    def __init__(
        self,
        host_username: str,
        host_ip: str,
        host_data_directory: str,
        local_data_directory: str,
        identity_file: str,
    ) -> None:
        self.host_username, self.host_ip = host_username, host_ip
        self.host_data_directory = host_data_directory
        self.local_data_directory = local_data_directory
        self.identity_file = identity_file

    def mount(self) -> bool:
        command = (
            f"mkdir -p {self.local_data_directory} && "
            f"sshfs {self.host_username}@{self.host_ip}:{self.host_data_directory} "
            f"{self.local_data_directory} -o IdentityFile={self.identity_file} "
            + " ".join(self.options)
        )
        return subprocess.call(command, shell=True) == 0  # noqa: S602 - as PTZJEPA's older form

    def unmount(self) -> None:
        subprocess.call(["fusermount", "-u", self.local_data_directory])
