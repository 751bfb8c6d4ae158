"""The public forms of a benchmark's records, written from the fields of its repository. Written by hand, not by the
reader under test."""

import ast
import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Record = dict[str, Any]
LETTERS = "ABCDEFGHIJKL"


def image_bytes(seed: int, size: tuple[int, int] = (12, 9), form: str = "PNG") -> bytes:
    """An image of its own for each seed."""
    drawn = Image.new("RGB", size, (seed * 37 % 256, seed * 91 % 256, seed * 13 % 256))
    drawn.putpixel((seed % size[0], seed % size[1]), (255, 255, 255))
    content = io.BytesIO()
    drawn.save(content, form)
    return content.getvalue()


def write_table(file: Path, rows: Sequence[Record]) -> Path:
    """A parquet table as on the hub."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


def write_tsv(file: Path, rows: Sequence[Record]) -> Path:
    """A table as VLMEvalKit's: written by pandas there, so None is empty; a list is its Python text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, delimiter="\t")
        table.writerow(names)
        table.writerows([["" if row.get(name) is None else row[name] for name in names] for row in rows])
    return file


def held(content: bytes | None) -> Record | None:
    return None if content is None else {"bytes": content, "path": "image.png"}


def encoded(images: Sequence[bytes]) -> str:
    texts = [base64.b64encode(content).decode() for content in images]
    return texts[0] if len(texts) == 1 else str(texts)


class Forms:
    """Writes the three forms of some records, with their images, under ``root``; each returns what to import."""

    split: str

    def __init__(self, root: Path, records: Mapping[str, Record], images: Mapping[str, Sequence[bytes]]) -> None:
        self.root, self.records, self.images = root, records, images

    def items(self) -> list[tuple[str, Record, Sequence[bytes]]]:
        return [(key, record, self.images[key]) for key, record in self.records.items()]

    def repository(self) -> Path:
        raise NotImplementedError

    def hub(self) -> Path:
        raise NotImplementedError

    def tsv(self) -> Path:
        raise NotImplementedError

    def _images(self, home: Path, names: Mapping[str, bytes]) -> None:
        for name, content in names.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(content)


class MathVision(Forms):
    split = "test"

    def repository(self) -> Path:
        home = self.root / "repository"
        self._images(home, {record["image"]: images[0] for _, record, images in self.items()})
        (home / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in self.records.values()))
        return home

    def hub(self) -> Path:
        rows = [{**record, "decoded_image": held(images[0])} for _, record, images in self.items()]
        return write_table(self.root / "hub" / "data" / "test-00000-of-00001-3a.parquet", rows).parents[1]

    def tsv(self) -> Path:
        rows = [
            {"index": key, "question": r["question"], "choices": str(r["options"]), "answer": r["answer"],
             "category": r["subject"], "image": encoded(images)}
            for key, r, images in self.items()
        ]  # fmt: skip
        return write_tsv(self.root / "MathVision.tsv", rows)


class MathVista(Forms):
    split = "testmini"
    queries: Mapping[str, str] = {}

    def repository(self) -> Path:
        home = self.root / "repository"
        self._images(home, {record["image"]: images[0] for _, record, images in self.items()})
        (home / "testmini.json").write_text(json.dumps(self.records))
        return home

    def hub(self) -> Path:
        rows = [
            {**r, "precision": None if r["precision"] is None else float(r["precision"]),
             "decoded_image": held(images[0]), "query": "Hint: ..."}
            for _, r, images in self.items()
        ]  # fmt: skip
        home = self.root / "hub"
        (home / "data").mkdir(parents=True)
        (home / "annot_testmini.json").write_text("{}")  # lies beside the tables on the hub
        return write_table(home / "data" / "testmini-00000-of-00001.parquet", rows).parents[1]

    def tsv(self) -> Path:
        rows = [
            {"index": key, "question": self.queries.get(key, r["question"]), "choices": str(r["choices"] or []),
             "answer": r["answer"], "question_type": r["question_type"], "answer_type": r["answer_type"],
             "answer_option": LETTERS[r["choices"].index(r["answer"])] if r["choices"] else None,
             "task": r["metadata"]["task"], "skills": str(r["metadata"].get("skills")), "image": encoded(images)}
            for key, r, images in self.items()
        ]  # fmt: skip
        return write_tsv(self.root / "MathVista_MINI.tsv", rows)


class LogicVista(Forms):
    split = "test"

    def repository(self) -> Path:
        home = self.root / "repository"
        self._images(home, {f"images/{r['imagename']}": images[0] for _, r, images in self.items()})
        (home / "dataset.json").write_text(json.dumps(self.records))
        return home

    def hub(self) -> Path:
        rows = [{**record, "image": held(images[0])} for _, record, images in self.items()]
        return write_table(self.root / "hub" / "test-00000-of-00001.parquet", rows).parent

    def tsv(self) -> Path:
        rows = [
            {"index": key.removeprefix("v1_"), "question": r["question"], "answer": r["answer"],
             "skill": r["skill"] if len(r["skill"]) > 1 else r["skill"][0], "image": encoded(images)}
            for key, r, images in self.items()
        ]  # fmt: skip
        return write_tsv(self.root / "LogicVista.tsv", rows)


class MMMUPro(Forms):
    split = "standard10"

    def repository(self) -> Path:
        home = self.root / "repository"
        named = {f"images/{key}_{n}.png": p for key, _, ps in self.items() for n, p in enumerate(ps, 1)}
        self._images(home, named)
        lines = "".join(json.dumps(record) + "\n" for record in self.records.values())
        (home / "records_standard10_1730.jsonl").write_text(lines)
        return home

    def hub(self) -> Path:
        rows = [
            {**r, **{f"image_{n}": held(ps[n - 1] if n <= len(ps) else None) for n in range(1, 8)}}
            for _, r, ps in self.items()
        ]
        home = self.root / "hub"
        write_table(home / "standard (10 options)" / "test-00000-of-00001.parquet", rows)
        write_table(home / "standard (4 options)" / "test-00000-of-00001.parquet", rows[:1])
        write_table(home / "vision" / "test-00000-of-00001.parquet", [{"id": "page"}])
        return home

    def tsv(self) -> Path:
        rows = []
        for number, (key, r, images) in enumerate(self.items()):
            options = ast.literal_eval(r["options"])
            rows.append(
                {"index": number, "id": key, "question": r["question"],
                 **{letter: options[n] if n < len(options) else None for n, letter in enumerate(LETTERS)},
                 "answer": r["answer"], "category": r["subject"], "split": "test", "image": encoded(images)}
            )  # fmt: skip
        return write_tsv(self.root / "MMMU_Pro_10c.tsv", rows)


class Transcription(Forms):
    split = "test"

    def repository(self) -> Path:
        home = self.root / "repository"
        self._images(home, {record["image"]: images[0] for _, record, images in self.items()})
        (home / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in self.records.values()))
        return home

    def hub(self) -> Path:
        rows = [{**record, "image": held(images[0])} for _, record, images in self.items()]
        return write_table(self.root / "hub" / "test-00000-of-00001.parquet", rows).parent

    def tsv(self) -> Path:
        rows = [
            {"index": key, "question": r["question"], "answer": r["answer"], "category": r["category"],
             "image": encoded(images)}
            for key, r, images in self.items()
        ]  # fmt: skip
        return write_tsv(self.root / "Transcription.tsv", rows)


FORMS: dict[str, type[Forms]] = {
    "mmmu_pro": MMMUPro, "mathvision": MathVision, "mathvista": MathVista, "logicvista": LogicVista,
    "transcription": Transcription,
}  # fmt: skip
