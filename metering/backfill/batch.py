"""Some lives of one host, recomputed in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import numpy as np

from metering import ledger
from metering.backfill import recorded, saving
from metering.backfill.anchors import Past
from metering.backfill.request import Report, Request
from metering.backfill.series import INTERFACES, LIVES, STORAGE, Kind, row_of_reading
from metering.backfill.stretches import (
    Plan,
    Recomputed,
    Stretch,
    find_stretches,
    fold_rows,
    hold,
    make_plan,
    recompute,
)
from metering.ledger import Book
from metering.lives import allocation_of, record_lives
from metering.models import Host, Life, StreamCursor
from metering.period import WINDOW_MS, from_ms
from metering.readings import (
    NEVER,
    Fold,
    new_interface_readings,
    new_life_reading,
    new_storage_readings,
)
from metering.samples import Event, Records, State
from metering.source import Container
from metering.steps import Bools, Ints
from metering.tally import Tally, is_among


class Batch:
    """Some lives of one host, recomputed in one transaction."""

    def __init__(
        self,
        host_id: UUID,
        rows: Mapping[str, Records],
        request: Request,
        report: Report,
        now: datetime,
    ) -> None:
        self.host_id, self.rows, self.request = host_id, rows, request
        self.report, self.now = report, now
        self.book = Book(host_id)
        self.lives: dict[int, Life] = {}
        self.lived_before: set[int] = set()

    def run(self, ids: Ints, containers: Sequence[Container]) -> None:
        """Lock, load, recompute what was folded, fold what was not, and save."""
        # Whoever aggregates holds this row, and passes by where it is held.
        StreamCursor.objects.select_for_update().get(host_id=self.host_id)
        if containers:
            record_lives(Host.objects.get(pk=self.host_id), containers, now=self.now)
        ids = self._known(ids)
        if not len(ids):
            return
        interfaces = self._of(INTERFACES)
        self.book.meet_lives(ids)
        self.book.interfaces.learn(ledger.load_interfaces(np.unique(interfaces["interface"])))
        self.book.storage.learn(ledger.load_storage(np.unique(self._of(STORAGE)["life"])))
        past = recorded.load(
            ids,
            np.unique(interfaces["interface"]),
            start_ms=self.request.start_ms,
            end_ms=self.request.end_ms,
        )
        self.lived_before = past.earlier[LIVES.name]
        lows = self._lows(ids)
        before = recorded.totals(ids.tolist(), lows, self.request.end_ms)
        changes = saving.Changes(past)
        # Interfaces first: those that begin look at where their lives stood.
        for kind in (INTERFACES, LIVES, STORAGE):
            self._replace(kind, changes)
        saving.save(changes, now=self.now)
        for kind in (INTERFACES, LIVES, STORAGE):
            self._extend(kind)
        ledger.save(self.book, now=self.now)
        self._end_lives()
        after = recorded.totals(ids.tolist(), lows, self.request.end_ms)
        for life in ids.tolist():
            self.report.add(self.lives[life].sandbox.account_id, before[life], after[life])
        self.report.lives += len(ids)

    def _known(self, ids: Ints) -> Ints:
        """Return the lives that are recorded, and of the accounts asked for."""
        found = Life.objects.filter(pk__in=ids.tolist(), host_id=self.host_id)
        self.lives = {life.pk: life for life in found.select_related("sandbox", "host")}
        self.report.unknown_lives += len(ids) - len(self.lives)
        accounts = self.request.accounts
        kept = [
            pk
            for pk, life in self.lives.items()
            if not accounts or life.sandbox.account_id in accounts
        ]
        ids = np.array(sorted(kept), np.int64)
        self.rows = {
            name: of_kind[is_among(of_kind["life"], ids)] for name, of_kind in self.rows.items()
        }
        return ids

    def _of(self, kind: Kind) -> Records:
        return self.rows[kind.name]

    def _tally(self, kind: Kind) -> Tally:
        return {
            LIVES.name: self.book.lives,
            INTERFACES.name: self.book.interfaces,
            STORAGE.name: self.book.storage,
        }[kind.name]

    def _lows(self, ids: Ints) -> list[int]:
        """Return from when each life's usage may change: the range, or its reading before it."""
        lows = dict.fromkeys(ids.tolist(), self.request.start_ms)
        for kind in (LIVES, INTERFACES, STORAGE):
            for reading in self._tally(kind).readings:
                life, read_ms = int(reading["life"]), int(reading["read_ms"])
                if read_ms != NEVER:
                    lows[life] = min(lows[life], read_ms // WINDOW_MS * WINDOW_MS)
        return list(lows.values())

    def _in_range(self, times_ms: Ints) -> Bools:
        inside: Bools = (times_ms > self.request.start_ms) & (times_ms <= self.request.end_ms)
        return inside

    def _replace(self, kind: Kind, changes: saving.Changes) -> None:
        """Recompute what was folded before, one stretch of every series after the other."""
        tally, rows = self._tally(kind), self._of(kind)
        todo: list[tuple[int, Records, Past, list[Stretch]]] = []
        for at, reading in enumerate(tally.readings):
            number = int(reading[kind.key])
            low, high = np.searchsorted(rows[kind.key], [number, number + 1])
            own = rows[low:high]
            times = own["read_ms"]
            folded = own[self._in_range(times) & (times <= reading["read_ms"])]
            if not len(folded) or (kind is LIVES and reading["sample_count"] == 0):
                continue
            past = self._past(kind, tally.readings[at : at + 1], own, changes.recorded)
            born_ms = past.started_ms if past.started_ms >= self.request.start_ms else None
            stretches, kept = find_stretches(
                folded["read_ms"],
                {} if self.request.fewer_samples else past.sample_counts,
                born_ms=born_ms,
            )
            self.report.kept_windows += kept
            todo.append((at, own, past, stretches))
        for turn in range(max((len(stretches) for *_, stretches in todo), default=0)):
            due = [one for one in todo if turn < len(one[3])]
            plans: list[Plan] = []
            planned: list[tuple[int, Past]] = []
            for at, own, past, stretches in due:
                if plan := make_plan(kind, stretches[turn], own, past):
                    plans.append(plan)
                    planned.append((at, past))
                else:
                    stretch = stretches[turn]
                    self.report.kept_windows += (stretch.end_ms - stretch.start_ms) // WINDOW_MS
            for (at, past), done in zip(planned, recompute(kind, plans), strict=True):
                self._take(kind, at, past, done, changes)

    def _take(
        self, kind: Kind, at: int, past: Past, done: Recomputed, changes: saving.Changes
    ) -> None:
        readings = self._tally(kind).readings
        reading = readings[at : at + 1]
        life = int(reading["life"][0])
        frozen_ms = int(self.book.owner_of(reading["life"])["frozen_until_ms"][0])
        name = self._interface_name(int(reading["interface"][0])) if kind is INTERFACES else ""
        grown = changes.take(kind, life, name, done, frozen_until_ms=frozen_ms)
        last_ms = int(past.last["read_ms"][0])
        readings[at : at + 1] = saving.moved_reading(kind, reading, done, last_ms=last_ms)
        if kind is LIVES:
            readings["sample_count"][at] += grown

    def _interface_name(self, number: int) -> str:
        rows = self._of(INTERFACES)
        at = int(np.searchsorted(rows["interface"], number))
        name: str = rows["name"][at].decode()
        return name

    def _past(self, kind: Kind, last: Records, own: Records, known: recorded.Recorded) -> Past:
        number, life = int(last[kind.key][0]), int(last["life"][0])
        records = known.of(kind, number)
        counts = zip(records["window_ms"].tolist(), records["sample_count"].tolist(), strict=True)
        started_ms = int(self.book.owner_of(last["life"])["from_ms"][0])
        return Past(
            last=last.copy(),
            fresh=self._fresh(kind, life, own[self._in_range(own["read_ms"])]),
            started_ms=NEVER if kind is INTERFACES else started_ms,
            growth=known.growth(kind, number),
            growth_beyond=known.beyond[kind.name].get(number, {}),
            resets=[one for one in known.resets.get(number, []) if one.counter in kind.counters],
            gaps=known.gaps.get(life, []),
            sample_counts=dict(counts),
            has_earlier=number in known.earlier[kind.name],
        )

    def _fresh(self, kind: Kind, life: int, own: Records) -> Records:
        """Return a reading of a series, an array of one, as it was before any sample."""
        if kind is INTERFACES:
            return self._fresh_interfaces(own[:1])
        began = self.lives[life]
        if kind is STORAGE:
            from_ms_ = began.started_ns // 10**6 if began.counts_from_zero else NEVER
            return new_storage_readings(
                np.array([life], np.int64), from_ms=np.array([from_ms_], np.int64)
            )
        return new_life_reading(
            life,
            started_ms=began.started_ns // 10**6,
            counts_from_zero=began.counts_from_zero,
            allocation=allocation_of(began),
        )

    def _fresh_interfaces(self, first: Records) -> Records:
        """Return readings of interfaces before their first samples: they go on from their lives."""
        lives = np.unique(first["life"])
        readings = self.book.lives.readings
        stood = readings[is_among(readings["life"], lives)].copy()
        start_ms = self.request.start_ms
        for row in stood:
            if row["read_ms"] <= start_ms:
                continue
            # Where it stood at the start of the range, if it lived then.
            life = int(row["life"])
            began_ms = int(self._fresh(LIVES, life, first[:0])["read_ms"][0])
            has_lived = life in self.lived_before
            row["read_ms"] = max(began_ms, start_ms) if has_lived or began_ms != NEVER else NEVER
        samples = self._of(LIVES)
        return new_interface_readings(
            first,
            life_readings=stood,
            life_samples=samples[is_among(samples["life"], lives)],
        )

    def _extend(self, kind: Kind) -> None:
        """Fold what lies after the last readings onto them, as the aggregator does."""
        tally = self._tally(kind)
        rows = self._of(kind)
        rows = rows[self._in_range(rows["read_ms"])]
        if kind is INTERFACES:
            self._meet_interfaces(rows)
        elif kind is STORAGE:
            lives = np.unique(rows["life"])
            new = lives[~tally.has(lives)]
            tally.learn(new_storage_readings(new, from_ms=self.book.owner_of(new)["from_ms"]))
            self.book.new_storage += new.tolist()
        if not len(rows):
            return
        readings = tally.readings
        last_ms = readings["read_ms"][np.searchsorted(readings[kind.key], rows[kind.key])]
        rows = rows[rows["read_ms"] > last_ms]
        if not len(rows):
            return
        held = self._held_at_start(kind, np.unique(rows[kind.key]))
        fold = fold_rows(kind, np.concatenate([held, rows]), readings)
        self._uncount(fold, kind, held)
        tally.add(fold)

    def _held_at_start(self, kind: Kind, numbers: Ints) -> Records:
        """Return rows at the start of the range for what is held there.

        They say what the samples between a series' last reading and the range tell; those
        themselves are not of the range.
        """
        rows, tally, start_ms = self._of(kind), self._tally(kind), self.request.start_ms
        held = [np.empty(0, kind.row)]
        for number in numbers.tolist() if kind is not INTERFACES else ():
            at = int(np.searchsorted(tally.readings[kind.key], number))
            reading = tally.readings[at : at + 1].copy()
            low, high = np.searchsorted(rows[kind.key], [number, number + 1])
            times = rows["read_ms"][low:high]
            before = rows[low:high][(times > reading["read_ms"]) & (times <= start_ms)]
            if reading["read_ms"][0] == NEVER or not len(before):
                continue
            hold(kind, reading, before)
            reading["read_ms"] = start_ms
            row = row_of_reading(kind, reading)
            if kind is LIVES:
                row["event"] = Event.CHANGED
            held.append(row)
        return np.concatenate(held)

    def _uncount(self, fold: Fold, kind: Kind, held: Records) -> None:
        """Take from the counts what was no sample: the rows at the start of the range."""
        window_ms = self.request.start_ms - WINDOW_MS
        of_held = (fold.usage["window_ms"] == window_ms) & is_among(
            fold.usage[kind.key], held[kind.key]
        )
        fold.usage["sample_count"][of_held] -= 1
        if kind is LIVES:
            for name in ("first_sample_ms", "last_sample_ms"):
                fold.usage[name][of_held] = NEVER
            of_held = is_among(fold.readings["life"], held["life"])
            fold.readings["sample_count"][of_held] -= 1

    def _meet_interfaces(self, rows: Records) -> None:
        tally = self.book.interfaces
        new = rows[~tally.has(rows["interface"])]
        if not len(new):
            return
        _, at = np.unique(new["interface"], return_index=True)
        first = new[at]
        tally.learn(self._fresh_interfaces(first))
        names = [name.decode() for name in first["name"].tolist()]
        self.book.new_interfaces += list(zip(first["interface"].tolist(), names, strict=True))

    def _end_lives(self) -> None:
        """Record the ends that came to light: of lives whose last reading is of their stop."""
        readings = self.book.lives.readings
        for reading in readings[readings["state"] == State.STOPPED]:
            life = self.lives[int(reading["life"])]
            if life.ended_at is None:
                ended_at = max(from_ms(int(reading["read_ms"])), life.started_at)
                Life.objects.filter(pk=life.pk, ended_at=None).update(ended_at=ended_at)
        gone = self.book.storage.readings
        for reading in gone[gone["is_gone"] == 1]:
            gone_at = from_ms(int(reading["read_ms"]))
            Life.objects.filter(pk=int(reading["life"]), gone_at=None).update(gone_at=gone_at)
