"""Soft prompts: vectors in front of the text that alone are trained; the whole network is frozen.

What goes in is `[shared; own; prompt; sentence]`: virtual tokens that all tasks share (if any), the task's own, and the
embeddings of its fixed prompt with the sentence. What comes out is the likelihood of the label words at the last token
(Lester et al., 2021, arXiv:2104.08691). The virtual tokens are new rows behind the embedding table.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.adapters.lora import import_peft
from pipeline.adapters.rows import LiveRows
from pipeline.backbone.batch import Batch
from pipeline.backbone.plan import plan_live
from pipeline.backbone.prefill import PrefillEngine
from pipeline.errors import AdapterError

CONFIG, WEIGHTS, TENSOR = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"


def text_ids(tokenizer: Any, text: str, virtual_tokens: int | None) -> np.ndarray:
    """The ids that virtual tokens begin as: the text's, without any special token.

    Args:
        virtual_tokens: how many; the text is cut or repeated to that. None for as many as it has.

    Raises:
        AdapterError: the text has no token.
    """
    ids = np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
    if not len(ids):
        raise AdapterError("virtual tokens begin as a text, and this one has no token", found=repr(text))
    if special := sorted(set(ids.tolist()) & set(tokenizer.all_special_ids)):
        raise AdapterError(
            "special tokens cannot be virtual tokens",
            expected="a text without them",
            found=f"{tokenizer.convert_ids_to_tokens(special)} in {text!r}",
        )
    return ids if virtual_tokens is None else np.resize(ids, virtual_tokens)


@dataclass(frozen=True)
class LabelReading:
    """How a task's label is read.

    Args:
        token_ids: `[c]` the first tokens of the label words.
        classes: `[c]` class numbers, alike.
        behind: how many tokens the tokenizer puts behind a text (EOS): they are left out, for the label is read there.
    """

    token_ids: np.ndarray
    classes: np.ndarray
    behind: int


class PromptedNetwork(nn.Module):
    """A frozen LLM, and virtual tokens in front of each task's texts.

    Args:
        engine: of the backbone; it computes the last layer.
        lm_head: `[V, d]`.
        readings: by task.
        own: by task, `[o, d]` float32, the first values of its own virtual tokens; none of them is no row.
        shared: `[s, d]` float32, those of all tasks.
        freeze_shared: the shared ones stay as they are.
        over: the loss is the label's likelihood among the label `words`, or over the whole `vocabulary`.
        token_budget: tokens a live pass.
    """

    def __init__(
        self,
        engine: PrefillEngine,
        lm_head: torch.Tensor,
        readings: Mapping[str, LabelReading],
        own: Mapping[str, torch.Tensor],
        shared: torch.Tensor,
        *,
        freeze_shared: bool,
        over: Literal["words", "vocabulary"],
        token_budget: int,
    ) -> None:
        super().__init__()
        self.engine, self.lm_head = engine, lm_head
        self.readings, self.over, self.token_budget = dict(readings), over, token_budget
        device = engine.backbone.device
        self.shared = nn.Parameter(shared.to(device, copy=True), requires_grad=not freeze_shared and len(shared) > 0)
        self._own = nn.ParameterList(
            nn.Parameter(values.to(device, copy=True), requires_grad=len(values) > 0) for values in own.values()
        )
        self.own = dict(zip(own, self._own, strict=True))
        embeddings = engine.backbone.model.get_input_embeddings()
        self._embed, self._vocabulary = embeddings, int(embeddings.num_embeddings)

    def virtual_tokens(self, task: str) -> torch.Tensor:
        """`[s + o, d]` float32: what stands before a task's texts."""
        return torch.cat((self.shared, self.own[task]))

    def batches(self, rows: LiveRows, numbers: np.ndarray) -> list[Batch]:
        """Live passes for some rows of a split `[m]`: virtual tokens, prompt and sentence."""
        count = len(self.virtual_tokens(rows.task.name))
        before = np.arange(self._vocabulary, self._vocabulary + count, dtype=np.int32)
        most_shared = count + int(rows.tokens.start[numbers].min())
        past = -self.readings[rows.task.name].behind or None
        ids = [np.concatenate((before, rows.tokens[number][:past])) for number in numbers]
        return plan_live(ids, most_shared, self.token_budget, share=self.engine.shares)

    def logits(self, rows: LiveRows, numbers: np.ndarray, batch: Batch) -> torch.Tensor:
        """`[r, c]` float32: logits of the label words, or their log-likelihoods over the vocabulary."""
        task = rows.task.name
        ids = torch.from_numpy(batch.flat_ids.astype(np.int64)).to(self.engine.backbone.device)
        embeds = self._embed(ids.clamp(max=self._vocabulary - 1))
        virtual = self.virtual_tokens(task)
        if len(virtual):
            places = (ids - self._vocabulary).clamp(min=0)
            vectors = nn.functional.embedding(places, virtual).to(embeds.dtype)
            embeds = torch.where((ids >= self._vocabulary)[..., None], vectors, embeds)
        last = batch.places[batch.offsets[1:] - 1]
        found: list[torch.Tensor] = []

        def take(layer: int, states: torch.Tensor) -> None:
            found.append(states.flatten(0, 1)[torch.from_numpy(last).to(states.device)])

        self.engine.run_live(batch, take, {self.engine.layers[-1]: last}, embeds)
        token_ids = torch.from_numpy(self.readings[task].token_ids).to(self.lm_head.device)
        of_words = found[-1].float() @ self.lm_head[token_ids].float().T
        if self.over == "words":
            return of_words
        return of_words - torch.logsumexp((found[-1] @ self.lm_head.T).float(), dim=-1, keepdim=True)

    def loss(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Minus the sum of the labels' log-likelihoods."""
        if self.over == "words":
            return nn.functional.cross_entropy(logits, wanted, reduction="sum")
        return -logits.gather(1, wanted[:, None]).sum()

    def classes_of(self, task: str) -> np.ndarray:
        """`[c]` class numbers, in the order of a task's logits."""
        return self.readings[task].classes

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The virtual tokens that are not frozen."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def modules_in_training(self) -> Iterator[nn.Module]:
        """None: nothing has a dropout."""
        return iter(())


def save_soft_prompt(folder: Path, virtual: torch.Tensor, model: Any, *, base: str) -> None:
    """Write virtual tokens `[n, d]` as peft's prompt tuning, so that `PeftModel.from_pretrained` loads them.

    What they began as is in the run's record: peft's config would have one text, and ask the Hub for its tokenizer.
    """
    config = import_peft().PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=len(virtual),
        token_dim=virtual.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=model.config.num_attention_heads,
        num_layers=model.config.num_hidden_layers,
        prompt_tuning_init="RANDOM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file({TENSOR: virtual.detach().cpu().float().contiguous()}, folder / WEIGHTS, metadata={"format": "pt"})


def read_soft_prompt(folder: Path, hidden_size: int) -> torch.Tensor:
    """The virtual tokens `[n, d]` float32 of a folder that `save_soft_prompt` or peft wrote.

    Raises:
        AdapterError: it holds none, or of another width.
    """
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        virtual = load_file(folder / WEIGHTS)[TENSOR].float()
        if config["peft_type"] != "PROMPT_TUNING" or virtual.ndim != 2 or virtual.shape[1] != hidden_size:
            raise ValueError(f"{config['peft_type']}, {list(virtual.shape)}")
    except Exception as error:
        raise AdapterError(
            "a soft prompt cannot be read",
            where=folder,
            expected=f"peft's prompt tuning, [n, {hidden_size}]",
            found=f"{type(error).__name__}: {error}",
        ) from error
    return virtual
