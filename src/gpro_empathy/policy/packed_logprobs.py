"""GRPO's log-probabilities with each group as one sequence.

The prompt stands once, then all its completions.

A stock trainer runs every completion with its own copy of the prompt, padded to the longest of the
batch. Here a group becomes

    prompt | completion 1 | completion 2 | ... | completion K

in which every completion's positions continue the prompt's, and each sees the prompt and itself
alone (module `packed_attention`): for each token exactly what it sees in separate copies, so the
numbers are the same up to rounding. Logits are computed for completion tokens only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from trl.trainer.utils import selective_log_softmax_and_entropy

from gpro_empathy.policy.packed_attention import ATTENTION


@dataclass(frozen=True)
class Packing:
    """Groups as padded sequences, N groups of T tokens.

    It also says where each completion token's prediction stands.

    ids_NT, positions_NT: token ids and their positions. segment_lengths: of each group's prompt and
        completions, ragged.
    group_M, predictor_M: for each of the M completion tokens, the group and the index of the token
        that predicts it.
    row_M, column_M: its place in the (B, C) matrix of completions; target_M: its id.
    """

    ids_NT: torch.Tensor
    positions_NT: torch.Tensor
    segment_lengths: list[list[int]]
    group_M: torch.Tensor
    predictor_M: torch.Tensor
    row_M: torch.Tensor
    column_M: torch.Tensor
    target_M: torch.Tensor


def pack(prompts: list[list[int]], completions: list[list[int]], starts: Sequence[int] | None = None) -> Packing:
    """Pack B completions, those of equal prompts into one sequence.

    Args:
        prompts: Token ids of each completion's prompt, ragged (B, ...), each at least one token
            long.
        completions: Token ids of the completions, ragged (B, ...).
        starts: How many leading tokens of each completion are read but not predicted; without, none
            are.
    """
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows_of.setdefault(tuple(prompt), []).append(row)
    lengths = [[len(prompt), *(len(completions[row]) for row in rows)] for prompt, rows in rows_of.items()]
    shape = (len(rows_of), max(sum(group) for group in lengths))
    ids_NT, positions_NT = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    places: list[tuple[int, int, int, int, int]] = []
    for group, (prompt, rows) in enumerate(rows_of.items()):
        end = len(prompt)
        ids_NT[group, :end] = torch.tensor(prompt)
        positions_NT[group, :end] = torch.arange(end)
        for row in rows:
            completion = completions[row]
            start, end = end, end + len(completion)
            ids_NT[group, start:end] = torch.tensor(completion, dtype=torch.long)
            positions_NT[group, start:end] = len(prompt) + torch.arange(len(completion))
            for column in range(starts[row] if starts else 0, len(completion)):
                predictor = start + column - 1 if column else len(prompt) - 1
                places.append((group, predictor, row, column, completion[column]))
    group_M, predictor_M, row_M, column_M, target_M = torch.tensor(places, dtype=torch.long).reshape(-1, 5).T
    return Packing(ids_NT, positions_NT, lengths, group_M, predictor_M, row_M, column_M, target_M)


def logits(model: torch.nn.Module, packing: Packing) -> torch.Tensor:
    """Return the logits of the tokens that predict the completions', shape (M, V).

    Args:
        model: A causal language model of transformers, LoRA inside or not; not its PEFT wrapper.
    """
    device = model.get_input_embeddings().weight.device
    # For good, as with gradient checkpointing the backward pass runs the layers again; for other
    # calls it changes nothing.
    model.set_attn_implementation(ATTENTION)
    hidden_NTH = model.base_model(
        input_ids=packing.ids_NT.to(device),
        position_ids=packing.positions_NT.to(device),
        use_cache=False,
        segment_lengths=packing.segment_lengths,
    ).last_hidden_state
    return model.get_output_embeddings()(rows(hidden_NTH, packing.group_M.to(device), packing.predictor_M.to(device)))


def rows(hidden_NTH: torch.Tensor, group_M: torch.Tensor, token_M: torch.Tensor) -> torch.Tensor:
    """Return the vectors at M places, shape (M, H), with a gradient reproducible on a CPU.

    There it is the same to the last bit in every run.

    A prompt's last token predicts the first of each response, so that gradients are added up there.
    The gradient of hidden_NTH[group_M, token_M] adds them in the order in which threads arrive;
    that of index_select, in the order of M.
    """
    return hidden_NTH.flatten(0, 1).index_select(0, group_M * hidden_NTH.shape[1] + token_M)


def log_probabilities(
    model: torch.nn.Module,
    prompts: list[list[int]],
    completions: list[list[int]],
    *,
    columns: int,
    temperature: float,
    entropy_requires_grad: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of every completion token and the entropy of its distribution.

    Args:
        model: As in `logits`.
        columns: Width C of the result, at least the longest completion.
        temperature: Sampling temperature that divides the logits.

    Returns:
        Two tensors of shape (B, C), nats; zero past a completion's end.
    """
    packing = pack(prompts, completions)
    logits_MV = logits(model, packing)
    device = logits_MV.device
    logps_M, entropy_M = selective_log_softmax_and_entropy(
        logits_MV.float(),
        packing.target_M.to(device),
        temperature=temperature,
        entropy_requires_grad=entropy_requires_grad,
    )
    place = (packing.row_M.to(device), packing.column_M.to(device))
    empty_BC = logps_M.new_zeros(len(completions), columns)
    return empty_BC.index_put(place, logps_M), empty_BC.index_put(place, entropy_M.to(logps_M.dtype))
