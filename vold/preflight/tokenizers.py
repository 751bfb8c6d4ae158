"""Do the same ids mean the same tokens on both sides, and do both end a turn with the same one?

The teacher reads the student's completions as ids, so only ids that the student can emit matter.
"""

from collections.abc import Mapping

from vold.answers.thoughts import THINK
from vold.findings import Finding, error, note, warning
from vold.models.checkpoint import Checkpoint
from vold.models.language_model import PLACEHOLDERS, end_of_turn

_PROBE = "First, 12 + 30 = 42.\n\nSo the answer is \\boxed{42}; naïve café, 数学 x²≥0.\n```python\n    return x\n```"


def tokenizer_findings(student: Checkpoint, teacher: Checkpoint | None) -> list[Finding]:
    """All checks of this theme; both checkpoints have their tokenizers."""
    found = own_findings(student)
    if teacher is not None:
        found += own_findings(teacher) + pair_findings(student, teacher)
    return found


def own_findings(side: Checkpoint) -> list[Finding]:
    """Rows, end of turn and padding of one checkpoint."""
    tokenizer, place = side.tokenizer, side.path / "tokenizer_config.json"
    vocabulary = tokenizer.get_vocab()
    found = []
    if max(vocabulary.values()) >= side.rows:
        what = f"the tokenizer's highest id is {max(vocabulary.values())}, the output has {side.rows} rows"
        mend = "tokenizer and weights are of different models: take both from one source, or resize the embeddings"
        found.append(error("tokenizers.rows", what, place, mend))
    end = end_of_turn(tokenizer)
    if end is None:
        what = "the tokenizer has neither <|im_end|> nor an EOS token: no completion would ever stop"
        return [*found, error("tokenizers.no_eos", what, place, "set eos_token to the token that ends a turn")]
    listed = side.generation.get("eos_token_id")
    stops = {index for index in (listed if isinstance(listed, list) else [listed]) if index is not None}
    name = tokenizer.convert_ids_to_tokens(end)
    if stops and end not in stops:
        shown = ", ".join(repr(tokenizer.convert_ids_to_tokens(index)) for index in sorted(stops))
        what = f"generation ends with {shown}, a turn with {name!r} (id {end}): other tools would not stop there"
        mend = f"add {end} to eos_token_id"
        found.append(warning("tokenizers.eos_differs", what, side.path / "generation_config.json", mend))
    if tokenizer.pad_token_id is None:
        what = "no pad token: tools that pad would fail or take the end of turn for it"
        found.append(warning("tokenizers.no_pad", what, place, "set pad_token, such as <|endoftext|>"))
    elif tokenizer.pad_token_id == end:
        what = f"the pad token is the end of turn {name!r}: tools that mask padding never learn to stop"
        mend = "set pad_token to another token, such as <|endoftext|>"
        found.append(warning("tokenizers.pad_is_eos", what, place, mend))
    return found


def pair_findings(student: Checkpoint, teacher: Checkpoint) -> list[Finding]:
    """Compare the tokenizers on the ids that the student can emit, and the output rows with them."""
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    found = _meaning_findings(student, teacher, ours, theirs)
    if found:
        return found
    found += _row_findings(student, teacher, ours)
    if only := sorted(theirs.keys() - ours.keys(), key=theirs.__getitem__):
        shown = ", ".join(map(repr, only[:6])) + (", ..." if len(only) > 6 else "")
        what = f"tokens of the teacher alone: {len(only)} ({shown}); the student cannot emit them"
        found.append(note("tokenizers.teacher_only", what, teacher.path, "nothing to do: their ids are banned"))
    for token in THINK:
        pieces = student.tokenizer.tokenize(token)
        if token in theirs and len(pieces) > 1:
            what = f"{token} is one id in the teacher and {len(pieces)} in the student ({' '.join(pieces)})"
            mend = "keep it out of traces, or give the student the token before the cold start"
            found.append(note("tokenizers.think", what, student.path, mend))
    ends = [end_of_turn(side.tokenizer) for side in (student, teacher)]
    if None not in ends and ends[0] != ends[1]:
        names = [student.tokenizer.convert_ids_to_tokens(ends[0]), teacher.tokenizer.convert_ids_to_tokens(ends[1])]
        what = f"the student ends its turn with {names[0]!r}, the teacher with {names[1]!r}"
        mend = "choose a teacher that ends its turns like the student, or change eos_token"
        found.append(warning("tokenizers.end_of_turn", what, teacher.path / "tokenizer_config.json", mend))
    read = [side.tokenizer(_PROBE, add_special_tokens=False)["input_ids"] for side in (student, teacher)]
    if read[0] != read[1]:
        what = "the same text becomes other ids: vocabularies agree, merges or normalisation do not"
        mend = "the teacher reads pieces that it would not write; choose a teacher of the student's tokenizer family"
        found.append(warning("tokenizers.segmentation", what, teacher.path / "tokenizer.json", mend))
    return found


def reachable_ids(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Tokens that the student can emit: all but the placeholders, which are never drawn."""
    return {token: index for token, index in vocabulary.items() if token not in PLACEHOLDERS}


def _meaning_findings(
    student: Checkpoint, teacher: Checkpoint, ours: Mapping[str, int], theirs: Mapping[str, int]
) -> list[Finding]:
    reachable = reachable_ids(ours)
    wrong = sorted((index, token) for token, index in reachable.items() if theirs.get(token) != index)
    if not wrong:
        return []
    names = {index: token for token, index in theirs.items()}
    shown = "; ".join(f"id {index} is {token!r} here, {names.get(index)!r} there" for index, token in wrong[:3])
    what = (
        f"the teacher has another vocabulary than student {student.path}: "
        f"{len(wrong)} of {len(reachable)} reachable ids differ ({shown})"
    )
    return [error("tokenizers.vocabulary", what, teacher.path, "choose a teacher of the student's tokenizer family")]


def _row_findings(student: Checkpoint, teacher: Checkpoint, ours: Mapping[str, int]) -> list[Finding]:
    needed = max(reachable_ids(ours).values()) + 1
    if teacher.rows < needed:
        what = f"the teacher has {teacher.rows} output rows, the student's tokenizer needs {needed}"
        mend = "choose a teacher of the student's tokenizer family"
        return [error("tokenizers.teacher_rows", what, teacher.path / "config.json", mend)]
    if teacher.rows != student.rows:
        what = f"padded widths differ: {student.rows} rows in the student, {teacher.rows} in the teacher"
        mend = "nothing to do: rows without a token are left out on both sides"
        return [note("tokenizers.padded_rows", what, teacher.path / "config.json", mend)]
    return []
