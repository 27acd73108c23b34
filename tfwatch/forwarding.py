"""Which packages may go to the lanes now: all that wait, one that tries, or those that are only backed up."""

from __future__ import annotations

from tfwatch.delivery.claim import Outbox
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.wiring import Wiring
from tfwatch.workshop import Workshop


class Forwarding:
    """From the outbox and from limbo to the lanes, as the switch allows. Used by the daemon's loop alone."""

    def __init__(self, outbox: Outbox, workshop: Workshop, switch: Switch, rollback: Rollback) -> None:
        self._outbox = outbox
        self._workshop = workshop
        self._switch = switch
        self._rollback = rollback

    def send(self, wiring: Wiring, *, scan_wanted: bool) -> bool:
        """Claim and dispatch what may go; true when a scan would find a package that may try.

        `scan_wanted`: one is to be made anyway.
        """
        stand = self._switch.stand
        if stand.open:
            self._workshop.dispatch_limbo()
            self._claim_all(wiring, is_backup=False)
        elif self._switch.probe_due:
            idle = self._workshop.in_flight == 0
            if idle and not self._outbox.claim_next(wiring.policy, purpose="deliver", is_probe=True):
                return not scan_wanted and self._find_probe()
        elif wiring.policy.when_disabled == "backup" and wiring.storage is not None and stand.word != "waiting":
            self._claim_all(wiring, is_backup=True)
        return False

    def _find_probe(self) -> bool:
        """Let one package go that waits until deliveries are on again, or in limbo, else one the rollback rejected."""
        if self._workshop.waiting.free_while_off(1):
            return True
        return not self._workshop.dispatch_limbo(is_probe=True) and self._rollback.offer_probe()

    def _claim_all(self, wiring: Wiring, *, is_backup: bool) -> None:
        while self._workshop.room > 0:
            if not self._outbox.claim_next(wiring.policy, purpose="back up" if is_backup else "deliver"):
                return
