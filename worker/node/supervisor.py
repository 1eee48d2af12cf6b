"""
The process on a node: registers, heartbeats, keeps its RQ workers alive.

One supervising process, two children: the *prober* measures, the *responder* answers tests and
carries runs on (queue `ptzmesh:control`) while the prober is busy.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import redis

from worker.host.orphans import reap
from worker.host.stopping import STOP_SIGNALS, StopAsked, stop_comes_within, stoppable
from worker.identity.context import NodeContext
from worker.identity.own_address import (
    checked_address,
    is_local,
    led_to,
    local_address,
    present_address,
)
from worker.model.errors import ConfigError
from worker.model.names import plain_ip
from worker.node.allowlist import AllowList, allow_listed
from worker.node.children import Child, open_many_files
from worker.node.outage import Outage
from worker.node.registration.changes import Changes
from worker.node.registration.facts import Facts, Said
from worker.node.registration.heartbeats import Heartbeats
from worker.node.registration.instance import Other, instance_of, refusal
from worker.node.registration.leftovers import Leftovers
from worker.node.registration.state_folder import hold, owner_token, usable
from worker.node.settings import NodeSettings
from worker.node.startup import when_redis_is_there
from worker.publish.outbox import Outbox, outbox_path
from worker.wire import keyspace, liveness, room, rq_jobs, scripts
from worker.wire.connection import server, traffic
from worker.wire.node_record import Node
from worker.wire.rows import OF_RUNS

logger = logging.getLogger(__name__)

#: SIGTERM is answered within 10 s: this long for the job in hand, the rest to deregister.
STOP_GRACE_S = 7.0
#: While Redis does not answer: soon enough to be heard before anybody counts this node as lost.
RETRY_S = liveness.HEARTBEAT_S / 4

#: The scripts of jobs: each call of one is a round trip less where the server has it already.
SCRIPTS = (
    *((names, "") for names in (
        ("job_record",), ("records",), ("page",), ("commands", "enqueue"),
        ("commands", "ask_port"), ("lease", "lease_acquire"),
        ("lease", "lease_renew"), ("lease", "lease_release"),
    )),
    (("commands", "go_on"), OF_RUNS),
    (("sign_of_life",), OF_RUNS),
    (("room", "entries", "publish"), room.KNOWN),
)  # fmt: skip

AllowListMaker = Callable[[NodeContext], AllowList]


class Supervisor:
    """Supervises one node until it is asked to stop."""

    def __init__(self, settings: NodeSettings, make_allow_list: AllowListMaker) -> None:
        """Begin unregistered."""
        self.settings = settings
        self.make_allow_list = make_allow_list
        # Shared with every child; a lock would be held by whom a signal interrupts.
        self.stopping = multiprocessing.get_context("fork").RawValue("b", 0)
        self.refusal: ConfigError | None = None
        self.is_unheard = False
        self.is_nowhere = False
        self.heard_at = self.connected_at = 0.0
        self.outage = Outage()
        self.children: list[Child] = []
        self.outbox = Outbox(outbox_path(settings.state_dir, settings.name))
        self.leftovers = Leftovers(settings.state_dir, settings.name)
        said = Said(labels=settings.labels, policy=settings.policy)
        self.changes = Changes(settings.name)
        self.facts = Facts(said=said, reread=settings.reread)
        self.record = Node(name=settings.name, address="")
        self.heartbeats = Heartbeats(self.outbox)

    def run(self) -> None:
        """
        Register, then heartbeat and supervise until SIGTERM or SIGINT.

        Raises:
            ConfigError: Another live process has this name.
            RedisUnavailable: Redis cannot be used at the start.
        """
        open_many_files()
        lock = hold(self.settings.state_dir, self.settings.name)
        with usable(self.settings.state_dir):
            self.heartbeats.instance = instance_of(lock, owner_token(lock))
            self.outbox.set_aside_others()
        connection = server.connect(self.settings.redis_url)
        # Taken in `_supervise`: who is registered does not end without deregistering.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        url, patient = self.settings.redis_url, self.settings.waits_for_redis
        try:
            when_redis_is_there(url, lambda: self._enter(connection), patient=patient)
        except StopAsked:
            self._stop()
            return
        connection.close()  # children are forked without a socket of ours
        self._start_children()
        doubt = "" if self._has_address() else ", which does not resolve here,"
        logger.info("node %s at %s%s is ready", self.settings.name, self.record.address, doubt)
        self._supervise(connection)
        self._stop()
        if self.refusal is not None:
            raise self.refusal

    def _enter(self, connection: redis.Redis) -> None:
        server.check_server(connection, self.settings.redis_url)
        self.record = self._describe(connection)
        self.heartbeats.register(connection, self.record)
        scripts.load(connection, SCRIPTS)
        self.changes.begin(self.record)

    def _describe(self, connection: redis.Redis) -> Node:
        towards_redis = local_address(connection)
        if self.settings.address is not None:
            address = checked_address(self.settings.address, towards_redis)
        elif towards_redis is not None:
            address = towards_redis
        else:
            raise ConfigError("the node's address is not known over a unix socket: say --address")
        self.facts.look()
        self._share(address)
        record = Node(
            name=self.settings.name,
            address=address,
            version=self.settings.version,
            pid=os.getpid(),
            host=socket.gethostname(),
            since=self.heartbeats.look_at_clock(connection),
        )
        return self.facts.in_record(record, looks_up=True)

    def _share(self, address: str) -> None:
        """Let the jobs know where we are, and all else that was found out."""
        self.facts.address = address
        self.facts.share()

    def _look_at_settings(self) -> bool:
        """Look whether the operator says something new; a heartbeat reports it at once."""
        if not self.facts.look_at_settings():
            return False
        self.facts.share()
        if self.facts.complaint:
            logger.warning("labels and limits stay as they were: %s", self.facts.complaint)
            return True
        logger.info("settings were read again")
        if later := self.facts.said.later:
            logger.warning("settings that take another start: %s", ", ".join(later))
        return True

    def _has_moved(self, connection: redis.Redis) -> bool:
        """Look whether we are at another address than the record says, and write that into it."""
        if self.settings.address is not None:
            return False
        address = present_address(connection, self.record.address)
        if address == self.record.address:
            return False
        self._share(address)
        self.record = self.facts.in_record(replace(self.record, address=address))
        for child in self.children:
            child.reconnect()
        logger.info("node %s is at %s now", self.settings.name, address)
        return True

    def _has_address(self) -> bool:
        """Look whether our address is one, and log once when a name does not resolve here."""
        address = self.record.address
        literals = led_to(address)
        if not literals and not self.is_nowhere:
            logger.warning(
                "address %s of this node does not resolve here, and likely nowhere: correct "
                "--address, or DNS; it is looked up again with each heartbeat",
                address,
            )
        if literals and self.is_nowhere:
            logger.warning("address %s resolves now", address)
        if literals:  # of a name that leads elsewhere by now
            self.facts.is_here = is_local(address, literals)
            self.record = self.facts.in_record(self.record)
        self.is_nowhere = not literals
        return bool(literals)

    def _start_children(self) -> None:
        name = self.settings.name
        context = NodeContext(
            name=name,
            address=self.record.address,
            redis_url=self.settings.redis_url,
            outbox_path=self.outbox.path,
            policy=self.facts.said.policy,
            iperf3=self.facts.iperf3,
            should_stop=lambda: bool(self.stopping.value),
            given=self.settings.address,
            renew=self.facts.renewed,
        )
        job_class = allow_listed(self.make_allow_list(context))
        queues = {
            "prober": [keyspace.node_queue(name)],
            "responder": [keyspace.serve_queue(name), keyspace.CONTROL_QUEUE],
        }
        url = self.settings.redis_url
        for role, names in queues.items():
            child = Child(role=role, node=name, redis_url=url, queues=names, job_class=job_class)
            self.children.append(child)
            child.keep_alive()
        self.heartbeats.workers = {child.role: child.worker_name for child in self.children}

    def _supervise(self, connection: redis.Redis) -> None:
        waits = self.outbox.waiting_bytes() or self.leftovers.waiting()
        next_beat = time.monotonic() + (0 if waits else liveness.HEARTBEAT_S)
        while not self.stopping.value:
            wait_s = min(1.0, max(0.0, next_beat - time.monotonic()))
            if stop_comes_within(wait_s):
                self.stopping.value = 1
                return
            for child in self.children:
                child.keep_alive()
            if self._look_at_settings():
                next_beat = time.monotonic()
            reap({child.process.pid or 0 for child in self.children if child.process})
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + liveness.HEARTBEAT_S
                try:
                    with stoppable():
                        self._heartbeat(connection)
                except StopAsked:
                    self.stopping.value = 1
                if self.outbox.is_behind:
                    next_beat = time.monotonic()
                elif self.is_unheard:
                    next_beat = time.monotonic() + RETRY_S

    def _heartbeat(self, connection: redis.Redis) -> None:
        try:
            # Before an overdue run is looked at.
            finished = self.outbox.resend(connection)
            if not self.outbox.is_behind:
                finished += self.leftovers.resend(connection)
            self.facts.look()
            self.facts.share()
            self.record = self.facts.in_record(self.record)
            began = time.monotonic()
            overdue = self.heartbeats.send(connection, self.record)
            if not isinstance(overdue, Other) and self._has_moved(connection):
                again = self.heartbeats.send(connection, self.record)
                overdue = again if isinstance(again, Other) else [*overdue, *again]
            if isinstance(overdue, Other):
                self.refusal = refusal(self.settings.name, self.record.address, overdue)
                self.heartbeats.owns_name = False
                self.stopping.value = 1
                return
            self._attend(began)
            for run in {*overdue, *finished}:
                rq_jobs.enqueue_advance(connection, run)
            self.changes.report(connection, self.record)
            if plain_ip(self.record.address) is None:
                self._has_address()  # after the beat: a silent name server takes its time
            self.is_unheard = False
            line = self.outage.answered(time.monotonic())
        except redis.RedisError as exc:
            self.is_unheard = True
            logger.debug("heartbeat not sent: %s", exc)
            line = self.outage.failed(time.monotonic(), exc)
        if line is not None:
            logger.warning("%s", line)

    def _attend(self, began: float) -> None:
        """
        Have workers connect and register again that Redis does not know, or that it cannot reach.

        Args:
            began: When the heartbeat that was answered was sent, on the monotonic clock.
        """
        lost, waiting = self.heartbeats.lost, self.heartbeats.waiting
        heard, made = self.heard_at, traffic.opened_at("supervisor")
        # Where our own connection had to be made again, theirs likely lead nowhere, too.
        is_made_again = bool(self.connected_at) and made != self.connected_at
        for child in self.children:
            is_older = traffic.opened_at(child.role) < heard
            is_unheard = child.role in waiting and child.waited_before(began)
            if child.role in lost or is_unheard or (is_made_again and is_older):
                child.reconnect()
        self.heard_at, self.connected_at = time.monotonic(), made

    def _stop(self) -> None:
        for child in self.children:
            child.ask_to_stop()
        deadline = time.monotonic() + STOP_GRACE_S
        for child in self.children:
            child.stop_by(deadline)
        if self.heartbeats.owns_name:
            # The last seconds of the ten: one try, and what a heartbeat left half-done is not used.
            connection = server.connect(
                self.settings.redis_url, socket_timeout_s=1.5, connect_timeout_s=1.5, retries=0
            )
            try:
                self.heartbeats.deregister(connection, self.settings.name)
            except redis.RedisError as exc:
                logger.warning("could not deregister: %s", exc)
        logger.info("node %s stopped", self.settings.name)
