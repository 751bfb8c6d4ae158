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
    findings = single_tokenizer_findings(student)
    if teacher is not None:
        findings += single_tokenizer_findings(teacher) + tokenizer_pair_findings(student, teacher)
    return findings


def single_tokenizer_findings(side: Checkpoint) -> list[Finding]:
    """Rows, end of turn and padding of one checkpoint."""
    tokenizer, where = side.tokenizer, side.path / "tokenizer_config.json"
    vocabulary = tokenizer.get_vocab()
    findings = []
    if max(vocabulary.values()) >= side.rows:
        message = f"the tokenizer's highest id is {max(vocabulary.values())}, the output has {side.rows} rows"
        fix = "tokenizer and weights are of different models: take both from one source, or resize the embeddings"
        findings.append(error("tokenizers.rows", message, where, fix))
    end = end_of_turn(tokenizer)
    if end is None:
        message = "the tokenizer has neither <|im_end|> nor an EOS token: no completion would ever stop"
        return [*findings, error("tokenizers.no_eos", message, where, "set eos_token to the token that ends a turn")]
    listed = side.generation.get("eos_token_id")
    stops = {index for index in (listed if isinstance(listed, list) else [listed]) if index is not None}
    name = tokenizer.convert_ids_to_tokens(end)
    if stops and end not in stops:
        shown = ", ".join(repr(tokenizer.convert_ids_to_tokens(index)) for index in sorted(stops))
        message = f"generation ends with {shown}, a turn with {name!r} (id {end}): other tools would not stop there"
        fix = f"add {end} to eos_token_id"
        findings.append(warning("tokenizers.eos_differs", message, side.path / "generation_config.json", fix))
    if tokenizer.pad_token_id is None:
        message = "no pad token: tools that pad would fail or take the end of turn for it"
        findings.append(warning("tokenizers.no_pad", message, where, "set pad_token, such as <|endoftext|>"))
    elif tokenizer.pad_token_id == end:
        message = f"the pad token is the end of turn {name!r}: tools that mask padding never learn to stop"
        fix = "set pad_token to another token, such as <|endoftext|>"
        findings.append(warning("tokenizers.pad_is_eos", message, where, fix))
    return findings


def tokenizer_pair_findings(student: Checkpoint, teacher: Checkpoint) -> list[Finding]:
    """Compare the tokenizers on the ids that the student can emit, and the output rows with them."""
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    findings = _meaning_findings(student, teacher, ours, theirs)
    if findings:
        return findings
    findings += _row_findings(student, teacher, ours)
    if only := sorted(theirs.keys() - ours.keys(), key=theirs.__getitem__):
        shown = ", ".join(map(repr, only[:6])) + (", ..." if len(only) > 6 else "")
        message = f"tokens of the teacher alone: {len(only)} ({shown}); the student cannot emit them"
        findings.append(note("tokenizers.teacher_only", message, teacher.path, "nothing to do: their ids are banned"))
    for token in THINK:
        pieces = student.tokenizer.tokenize(token)
        if token in theirs and len(pieces) > 1:
            message = f"{token} is one id in the teacher and {len(pieces)} in the student ({' '.join(pieces)})"
            fix = "keep it out of traces, or give the student the token before the cold start"
            findings.append(note("tokenizers.think", message, student.path, fix))
    ends = [end_of_turn(side.tokenizer) for side in (student, teacher)]
    if None not in ends and ends[0] != ends[1]:
        names = [student.tokenizer.convert_ids_to_tokens(ends[0]), teacher.tokenizer.convert_ids_to_tokens(ends[1])]
        message = f"the student ends its turn with {names[0]!r}, the teacher with {names[1]!r}"
        fix = "choose a teacher that ends its turns like the student, or change eos_token"
        findings.append(warning("tokenizers.end_of_turn", message, teacher.path / "tokenizer_config.json", fix))
    read = [side.tokenizer(_PROBE, add_special_tokens=False)["input_ids"] for side in (student, teacher)]
    if read[0] != read[1]:
        message = "the same text becomes other ids: vocabularies agree, merges or normalisation do not"
        fix = "the teacher reads pieces that it would not write; choose a teacher of the student's tokenizer family"
        findings.append(warning("tokenizers.segmentation", message, teacher.path / "tokenizer.json", fix))
    return findings


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
    message = (
        f"the teacher has another vocabulary than student {student.path}: "
        f"{len(wrong)} of {len(reachable)} reachable ids differ ({shown})"
    )
    return [error("tokenizers.vocabulary", message, teacher.path, "choose a teacher of the student's tokenizer family")]


def _row_findings(student: Checkpoint, teacher: Checkpoint, ours: Mapping[str, int]) -> list[Finding]:
    needed = max(reachable_ids(ours).values()) + 1
    if teacher.rows < needed:
        message = f"the teacher has {teacher.rows} output rows, the student's tokenizer needs {needed}"
        fix = "choose a teacher of the student's tokenizer family"
        return [error("tokenizers.teacher_rows", message, teacher.path / "config.json", fix)]
    if teacher.rows != student.rows:
        message = f"padded widths differ: {student.rows} rows in the student, {teacher.rows} in the teacher"
        fix = "nothing to do: rows without a token are left out on both sides"
        return [note("tokenizers.padded_rows", message, teacher.path / "config.json", fix)]
    return []
