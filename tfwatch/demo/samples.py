"""The packages that the demo drops, and where each must end."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tfwatch.model import Event, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One ZIP to drop. `events`: the log's milestones about it, in order. `ordered`: whether the portal gets an order.

    `slowly`: written in place, piece by piece, as a slow copy does. `note`: what is special about it, for people.
    """

    name: str
    note: str
    content: bytes
    stage: Stage
    events: tuple[Event, ...]
    ordered: bool = True
    slowly: bool = False

    @property
    def sha256(self) -> str:
        """Of the whole ZIP, as 64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def delivered(self) -> bool:
        """Whether it must end in delivered/, and so in the backup."""
        return self.stage is Stage.DELIVERED


MILESTONES: Final = frozenset({Event.ACCEPTED, Event.COMPLETED, Event.REFUSED, Event.BACKED_UP})
"""What is held against `Sample.events`; rows about tries between them may vary with the machine's load."""

_DELIVERED: Final = (Event.ACCEPTED, Event.COMPLETED, Event.BACKED_UP)
_Lines = Sequence[tuple[str, str]]

_ASSEMBLY: Final[_Lines] = (
    ("Síndica", "Boa noite a todos, vamos começar a assembleia do condomínio."),
    ("Morador", "O primeiro ponto é a reforma da portaria, certo?"),
    ("Síndica", "Isso. Recebemos três orçamentos e a ata registra cada um."),
)
_PODCAST: Final[_Lines] = (
    ("Host", "Welcome back to the show. Today we talk about how cities listen to their citizens."),
    ("Guest", "Thank you for having me. It started with one microphone in a public square."),
)
_LESSON: Final[_Lines] = (
    ("Professora", "Na aula de hoje: a chegada da corte portuguesa ao Rio de Janeiro, em 1808."),
    ("Aluno", "Foi aí que abriram os portos?"),
    ("Professora", "Exatamente, por carta régia de 28 de janeiro."),
)
_INTERVIEW: Final[_Lines] = (
    ("Interviewer", "Could you describe your first week on the ship?"),
    ("Witness", "Mostly I remember the noise, and that nobody slept."),
)
_CALL: Final[_Lines] = (
    ("Atendente", "Central de atendimento, em que posso ajudar?"),
    ("Cliente", "[inaudível] ... a ligação está [ruído] ..."),
)


def samples() -> tuple[Sample, ...]:
    """All of them, in the order in which they are dropped."""
    assembly = _package("assembleia", 1, "pt-BR", _ASSEMBLY)
    return (
        Sample(
            name="aula-historia_v1.zip",
            note="written slowly, in place",
            content=_package("aula-historia", 1, "pt-BR", _LESSON),
            stage=Stage.DELIVERED,
            events=_DELIVERED,
            slowly=True,
        ),
        Sample(
            name="assembleia_v1.zip",
            note="",
            content=assembly,
            stage=Stage.DELIVERED,
            events=_DELIVERED,
        ),
        Sample(
            name="podcast-042_v2.zip",
            note="",
            content=_package("podcast-042", 2, "en", _PODCAST),
            stage=Stage.DELIVERED,
            events=_DELIVERED,
        ),
        Sample(
            name="entrevista_v1.zip",
            note="broken: one byte is wrong",
            content=_with_one_wrong_byte(_package("entrevista", 1, "en", _INTERVIEW)),
            stage=Stage.REJECTED,
            events=(Event.REFUSED,),
            ordered=False,
        ),
        Sample(
            name="assembleia_v2.zip",
            note="the same bytes as its _v1",
            content=assembly,
            stage=Stage.REJECTED,
            events=(Event.REFUSED,),
            ordered=False,
        ),
        Sample(
            name="reject-ruido_v1.zip",
            note="the portal will refuse it",
            content=_package("reject-ruido", 1, "pt-BR", _CALL),
            stage=Stage.REJECTED,
            events=(Event.ACCEPTED, Event.REFUSED),
        ),
    )


def _package(job: str, version: int, language: str, lines: _Lines) -> bytes:
    """A package as TranscribeFlow builds it: four members in a folder named like the job."""
    manifest = {
        "job_id": job,
        "version": version,
        "language": language,
        "trace_id": hashlib.sha256(f"{job} {version}".encode()).hexdigest()[:32],
        "files": ["transcript.txt", "segments.json", "subtitles.srt"],
    }
    segments = [
        {"id": n, "start": 4.0 * n, "end": 4.0 * n + 3.6, "speaker": speaker, "text": text}
        for n, (speaker, text) in enumerate(lines)
    ]
    members = {
        "transcript.txt": "".join(f"{speaker}: {text}\n" for speaker, text in lines),
        "manifest.json": json.dumps(manifest, ensure_ascii=False, indent=2),
        "segments.json": json.dumps(segments, ensure_ascii=False, indent=2),
        "subtitles.srt": "".join(
            f"{n + 1}\n{_srt_time(4.0 * n)} --> {_srt_time(4.0 * n + 3.6)}\n{text}\n\n"
            for n, (_, text) in enumerate(lines)
        ),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(f"{job}/{name}", date_time=(2025, 11, 13, 10, 35, 32)), text)
    return buffer.getvalue()


def _srt_time(seconds: float) -> str:
    return f"00:00:{seconds:06.3f}".replace(".", ",")


def _with_one_wrong_byte(content: bytes) -> bytes:
    """Its structure stays complete; one member's checksum no longer fits."""
    at = content.index(b"noise")
    return content[:at] + b"N" + content[at + 1 :]
