"""The secrets of those who call in: may the daemon read them, may nobody else, and are they young enough?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime

from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped
from tfwatch.webhook_secrets import SecretsUnusable, load, too_old


def webhooks(case: Case) -> Iterator[Finding]:
    """The file with the secrets as the daemon reads it, and their ages."""
    path, most_days = case.config.webhooks.secrets_file, case.config.webhooks.max_secret_age_days
    if case.settings.problems:
        yield skipped("webhooks", "the settings have problems")
        return
    if not case.config.web.enabled:
        yield skipped("webhooks", "web.enabled is false, so nobody can call in")
        return
    try:
        known = load(path)
    except SecretsUnusable as error:
        seen = error.trouble.message.partition("; deliveries go on")[0]
        yield failure("webhooks", seen, _mend(case, path, error.trouble.kind))
        return
    if not known:
        yield skipped("webhooks", f"{path} is not there or empty, so nobody may call in")
        return
    old = too_old(known, now=datetime.now(UTC), max_age_days=most_days)
    for trouble in old:
        seen, _, do = trouble.message.rpartition(": ")
        yield failure("webhooks", seen.removeprefix("webhooks: "), do)
    if not old:
        yield ok("webhooks", f"{len(known)} integration(s) may call in, no secret is older than {most_days} days")


def _mend(case: Case, path: str, kind: str) -> str:
    quoted = shlex.quote(path)
    if kind == "exposed":
        return f"sudo chmod 640 {quoted}, then a new secret for each: tfwatch rotate-secret INTEGRATION"
    return f"mend the file, or let {case.user.name} read it: sudo chgrp {case.user.group} {quoted}"
