"""A system clock that can be set while the daemon runs: for that process alone, by a library loaded before libc.

libfaketime would do, but its 0.9.10 (Debian 12) makes Python's `time.sleep` fail with EINVAL once the clock was set.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.require import need

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *seconds_fast;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("TEST_CLOCK"), O_RDONLY);
    void *page = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) abort();
    seconds_fast = page;
    close(fd);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, which, now);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += *seconds_fast;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *also) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (also) *also = now.tv_sec;
    return now.tv_sec;
}
"""


class SettableClock:
    """What one process takes for the time of day. Its monotonic clock and its files' times stay real."""

    def __init__(self, home: Path) -> None:
        compiler = need("gcc")
        self._file = home / "clock"
        self._file.write_bytes(struct.pack("l", 0))
        self._library = home / "clock.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), "-xc", "-"],
            input=_SOURCE, text=True, check=True,
        )  # fmt: skip

    def set(self, seconds: int) -> None:
        """So many seconds fast (or, negative, slow) from now on."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("l", seconds))

    @property
    def env(self) -> Mapping[str, str]:
        """The environment to start that process with."""
        return {"LD_PRELOAD": str(self._library), "TEST_CLOCK": str(self._file)}
