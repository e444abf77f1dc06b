"""The machine with people in it, who fire again what has ended, think better of it, and say what a network said."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.model.again import ENDED
from tests.model.bench import Bench
from tests.model.machine import Machine, labels, pick
from tests.model.places import PLACES
from tests.model.rules import Place, Postback


class Peopled(Machine):
    """What people do is only interesting where something has failed, so more fails here than elsewhere."""

    @initialize()
    def nobody_has_begun(self) -> None:
        self.runs: list[int] = []
        """Of replays, as far as they may still be stopped."""

    @precondition(lambda self: self.world.due())
    @rule(
        verdict=st.sampled_from(("unknown", "rejected", "retry")),
        times=st.sampled_from((1, 3)),
        force=st.sampled_from((None, False, True, True)),
        then=st.sampled_from(("", "refund", "refund late", "stop", "delivered", "not-counted")),
    )
    def fire_in_vain(self, verdict: str, times: int, force: bool | None, then: str) -> None:
        """Everything due is answered badly or not at all; a person fires again what ended by that. A refund comes before
        or after, or the person thinks better of it, or asks the network first."""
        for _ in range(times):
            if self.world.due():
                self.send()
                self.agrees()
                if self.sent:
                    self.answer_all(verdict)
                self._pass(40)
        failed = [each for each in self.world.postbacks if each.state in ("dead", "rejected", "in_doubt")]
        if force is not None and failed:
            event_id = failed[-1].conversion.event_id
            if failed[-1].state == "in_doubt" and then in ("delivered", "not-counted"):
                self._settle(failed[-1], then)
            if then == "refund":
                self._say("refund", "", event_id)
            self.agrees()
            self._replay(failed[-1], force=force)
            self.agrees()
            if then == "refund late":
                self._say("refund", "", event_id)
            elif then == "stop":
                self._stop(self.runs.pop())

    @precondition(lambda self: self._delivered())
    @rule(which=pick, then=st.sampled_from(("", "refund", "stop")))
    def insist(self, which: int, then: str) -> None:
        """The network says that it has nothing, and a person fires again what was delivered; as after a failure."""
        delivered = self._delivered()
        postback = delivered[which % len(delivered)]
        self._replay(postback, force=True)
        self.agrees()
        if then == "refund":
            self._say("refund", "", postback.conversion.event_id)
        elif then == "stop":
            self._stop(self.runs.pop())

    def _delivered(self) -> list[Postback]:
        return [each for each in self.world.postbacks if each.state == "delivered" and each.corrects is None]

    @precondition(lambda self: any(each.state in ENDED for each in self.world.postbacks))
    @rule(
        which=pick,
        state=st.sampled_from(
            ("dead", "dead", "rejected", "in_doubt", "in_doubt", "expired", "delivered", "voided")
        ),
        force=st.sampled_from((False, False, True)),
        everything=st.sampled_from((False, False, False, True)),
    )
    def replay(self, which: int, state: str, force: bool, everything: bool) -> None:
        """One that has ended so, or else in any way; or all there are."""
        ended = [each for each in self.world.postbacks if each.state in ENDED]
        ended = [each for each in ended if each.state == state] or ended
        self._replay(None if everything else ended[which % len(ended)], force=force)

    def _replay(self, one: Postback | None, *, force: bool) -> None:
        self._refer()
        chosen = sorted(self.world.postbacks if one is None else [one], key=self._id)
        run_id, found = self.bench.replay(None if one is None else self._id(one), force=force)
        refused = {each.label: self.world.replay(each, run_id, force=force) for each in chosen}
        again = [each for each in chosen if refused[each.label] is None]
        self._tell(f"replay {run_id}{', forced' if force else ''}: {labels(chosen)}; fires {labels(again)}")
        for postback in chosen:
            said = found.get(self._id(postback), "not looked at")
            ours = refused[postback.label]
            assert (ours is None) == (said is None), (
                f"{postback.label}: refused for {ours}, by the store: {said}"
            )
        self.runs.append(run_id)

    @precondition(lambda self: self.runs)
    @rule(which=pick)
    def stop(self, which: int) -> None:
        """What has not fired of a run is what it was; a run is stopped once."""
        self._stop(self.runs.pop(which % len(self.runs)))

    def _stop(self, run_id: int) -> None:
        expected = self.world.put_back(run_id)
        count = self.bench.put_back(run_id)
        self._tell(f"run {run_id} stopped: {labels(expected)} put back")
        assert count == len(expected), f"{count} put back, {len(expected)} had not fired"

    @precondition(lambda self: any(each.state == "in_doubt" for each in self.world.postbacks))
    @rule(which=pick, said=st.sampled_from(("delivered", "not-counted")))
    def settle_by_hand(self, which: int, said: str) -> None:
        """The network was asked, and what it says is true."""
        doubted = [each for each in self.world.postbacks if each.state == "in_doubt"]
        self._settle(doubted[which % len(doubted)], said)

    def _settle(self, postback: Postback, said: str) -> None:
        self._tell(f"{postback.label} settled by hand: {said}")
        assert self.bench.settle_by_hand(self._id(postback), said)
        if said == "delivered":
            self._show(postback, self.told[postback.label])
        self.world.settle_by_hand(postback, said)


def machine_on(bench: Bench, scene: list[Place] = PLACES, *, people: bool = True) -> type[Machine]:
    """A machine of its own for one run, whose stories play at places of the ``scene``, with people in them or without."""
    made = {"bench": bench, "scene": scene, "steps": 0, "last": [], "situations": Counter()}
    return type("Story", (Peopled if people else Machine,), made)
