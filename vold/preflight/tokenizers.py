"""Checks of the tokenizers: whether ids mean the same tokens in both models, and how a turn ends.

The teacher reads the student's completions as ids. Only ids that the student can emit matter.
"""

from collections.abc import Mapping

from vold.answers.thoughts import THINK
from vold.findings import Finding, error, note, warning
from vold.models.checkpoint import Checkpoint
from vold.models.language_model import PLACEHOLDERS, end_of_turn

_PROBE = "First, 12 + 30 = 42.\n\nSo the answer is \\boxed{42}; naïve café, 数学 x²≥0.\n```python\n    return x\n```"


def tokenizer_findings(student: Checkpoint, teacher: Checkpoint | None) -> list[Finding]:
    """All checks of the tokenizers. Both checkpoints must have theirs."""
    findings = single_tokenizer_findings(student)
    if teacher is not None:
        findings += single_tokenizer_findings(teacher) + tokenizer_pair_findings(student, teacher)
    return findings


def single_tokenizer_findings(checkpoint: Checkpoint) -> list[Finding]:
    """Checks the output rows, the end of turn and the padding of one checkpoint."""
    tokenizer, where = checkpoint.tokenizer, checkpoint.path / "tokenizer_config.json"
    highest = max(tokenizer.get_vocab().values())
    findings = []
    if highest >= checkpoint.rows:
        message = f"the tokenizer's highest id is {highest}, but the model has {checkpoint.rows} output rows"
        fix = "take tokenizer and weights from one source, or resize the embeddings"
        findings.append(error("tokenizers.rows", message, where, fix))
    end = end_of_turn(tokenizer)
    if end is None:
        message = "the tokenizer has neither <|im_end|> nor an EOS token, so no completion would ever stop"
        return [*findings, error("tokenizers.no_eos", message, where, "set eos_token to the token that ends a turn")]
    listed = checkpoint.generation.get("eos_token_id")
    stops = {token_id for token_id in (listed if isinstance(listed, list) else [listed]) if token_id is not None}
    name = tokenizer.convert_ids_to_tokens(end)
    if stops and end not in stops:
        names = ", ".join(repr(tokenizer.convert_ids_to_tokens(token_id)) for token_id in sorted(stops))
        message = f"generation ends with {names}, but a turn with {name!r} (id {end}), where other tools do not stop"
        fix = f"add {end} to eos_token_id"
        findings.append(warning("tokenizers.eos_differs", message, checkpoint.path / "generation_config.json", fix))
    if tokenizer.pad_token_id is None:
        message = "the tokenizer has no pad token, so tools that pad would fail or use the end of turn"
        findings.append(warning("tokenizers.no_pad", message, where, "set pad_token, for example to <|endoftext|>"))
    elif tokenizer.pad_token_id == end:
        message = f"the pad token is the end of turn {name!r}, so training with tools that mask padding never learns it"
        fix = "set pad_token to another token, for example to <|endoftext|>"
        findings.append(warning("tokenizers.pad_is_eos", message, where, fix))
    return findings


def tokenizer_pair_findings(student: Checkpoint, teacher: Checkpoint) -> list[Finding]:
    """Compares two tokenizers on the ids that the student can emit, and the output rows of both models."""
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if findings := _meaning_findings(student, teacher, ours, theirs):
        return findings
    return (
        _row_findings(student, teacher, ours)
        + _extra_token_findings(student, teacher, ours, theirs)
        + _end_findings(student, teacher)
        + _segmentation_findings(student, teacher)
    )


def reachable_ids(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """The tokens that the student can emit: all but the placeholders, which are never drawn."""
    return {token: token_id for token, token_id in vocabulary.items() if token not in PLACEHOLDERS}


def _meaning_findings(
    student: Checkpoint, teacher: Checkpoint, ours: Mapping[str, int], theirs: Mapping[str, int]
) -> list[Finding]:
    reachable = reachable_ids(ours)
    different = sorted((token_id, token) for token, token_id in reachable.items() if theirs.get(token) != token_id)
    if not different:
        return []
    names = {token_id: token for token, token_id in theirs.items()}
    examples = "; ".join(
        f"id {token_id} is {token!r} in the student, {names.get(token_id)!r} in the teacher"
        for token_id, token in different[:3]
    )
    message = (
        f"the teacher has another vocabulary than the student {student.path}: "
        f"{len(different)} of {len(reachable)} reachable ids differ ({examples})"
    )
    return [error("tokenizers.vocabulary", message, teacher.path, "choose a teacher of the student's tokenizer family")]


def _row_findings(student: Checkpoint, teacher: Checkpoint, ours: Mapping[str, int]) -> list[Finding]:
    needed = max(reachable_ids(ours).values()) + 1
    if teacher.rows < needed:
        message = f"the teacher has {teacher.rows} output rows, but the student's tokenizer needs {needed}"
        fix = "choose a teacher of the student's tokenizer family"
        return [error("tokenizers.teacher_rows", message, teacher.path / "config.json", fix)]
    if teacher.rows != student.rows:
        message = f"the student has {student.rows} output rows, the teacher {teacher.rows}"
        fix = "change nothing: rows without a token are ignored in both"
        return [note("tokenizers.padded_rows", message, teacher.path / "config.json", fix)]
    return []


def _extra_token_findings(
    student: Checkpoint, teacher: Checkpoint, ours: Mapping[str, int], theirs: Mapping[str, int]
) -> list[Finding]:
    findings = []
    if extra := sorted(theirs.keys() - ours.keys(), key=theirs.__getitem__):
        examples = ", ".join(map(repr, extra[:6])) + (", ..." if len(extra) > 6 else "")
        message = f"only the teacher has {len(extra)} tokens, which the student cannot emit ({examples})"
        findings.append(note("tokenizers.teacher_only", message, teacher.path, "change nothing: their ids are banned"))
    for token in THINK:
        pieces = student.tokenizer.tokenize(token)
        if token in theirs and len(pieces) > 1:
            message = f"{token} is one token in the teacher and {len(pieces)} in the student ({' '.join(pieces)})"
            fix = "keep it out of traces, or give the student the token before the cold start"
            findings.append(note("tokenizers.think", message, student.path, fix))
    return findings


def _end_findings(student: Checkpoint, teacher: Checkpoint) -> list[Finding]:
    our_end, their_end = end_of_turn(student.tokenizer), end_of_turn(teacher.tokenizer)
    if our_end is None or their_end is None or our_end == their_end:
        return []
    our_name = student.tokenizer.convert_ids_to_tokens(our_end)
    their_name = teacher.tokenizer.convert_ids_to_tokens(their_end)
    message = f"the student ends its turn with {our_name!r}, the teacher with {their_name!r}"
    fix = "choose a teacher that ends its turns like the student, or change eos_token"
    return [warning("tokenizers.end_of_turn", message, teacher.path / "tokenizer_config.json", fix)]


def _segmentation_findings(student: Checkpoint, teacher: Checkpoint) -> list[Finding]:
    ours, theirs = (model.tokenizer(_PROBE, add_special_tokens=False)["input_ids"] for model in (student, teacher))
    if ours == theirs:
        return []
    message = (
        "the two tokenizers split the same text differently (in merges or normalisation), so the teacher would read "
        "tokens that it never writes"
    )
    fix = "choose a teacher of the student's tokenizer family"
    return [warning("tokenizers.segmentation", message, teacher.path / "tokenizer.json", fix)]
