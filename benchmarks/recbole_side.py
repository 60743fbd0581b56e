"""SASRec and GRU4Rec of RecBole on files that `python -m benchmarks elsewhere-split` wrote, and their vectors.

Runs where RecBole is installed; nothing of this project is imported, and RecBole is no dependency of it:

    python benchmarks/recbole_side.py FOLDER --model SASRec --loss CE --seed 0 --name sasrec-ce

Model, loss, batches and negatives are RecBole's. The best epoch is chosen by NDCG@10 of validation items among the
whole catalogue less what a user met, as the project chooses, and `FOLDER/NAME.SEED.npz` gets the vectors of that epoch:
`items` (N+1, D), row 0 zeros, `validation` and `test` (E, D) in the order of the files.

Axes: E users, N items, D embedding size, B users of a batch.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

EVALUATED_AT_ONCE = 512


def settings(arguments: argparse.Namespace) -> dict[str, object]:
    """RecBole's own defaults but for the embedding size and what follows from it, and what a command says."""
    size = arguments.embedding_size
    sizes = {
        "SASRec": {"hidden_size": size, "inner_size": 4 * size, "n_heads": 1},
        "GRU4Rec": {"embedding_size": size, "hidden_size": 2 * size},
    }[arguments.model]
    dropout = {"hidden_dropout_prob", "attn_dropout_prob"} if arguments.model == "SASRec" else {"dropout_prob"}
    if arguments.dropout is not None:
        sizes |= dict.fromkeys(dropout, arguments.dropout)
    negatives = {"distribution": "uniform", "sample_num": 1} if arguments.loss == "BPR" else None
    return sizes | {
        "data_path": str(arguments.folder.parent),
        "benchmark_filename": ["train", "validation", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"], "item": ["item_id"]},
        "MAX_ITEM_LIST_LENGTH": 50,
        "loss_type": arguments.loss,
        "train_neg_sample_args": negatives,
        "train_batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
        "eval_args": {"order": "TO", "mode": "full"},
        "seed": arguments.seed,
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": str(arguments.folder / "saved"),
    }


@torch.no_grad()
def users_of(model: torch.nn.Module, data: torch.utils.data.Dataset) -> np.ndarray:
    """(E, D) of the rows of a file, in their order."""
    model.eval()
    parts = []
    for start in range(0, len(data), EVALUATED_AT_ONCE):
        rows = data[list(range(start, min(start + EVALUATED_AT_ONCE, len(data))))]
        parts.append(model(rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN]).numpy())
    return np.concatenate(parts)


def ndcg_at_10(users_E_D: np.ndarray, items_N_D: np.ndarray, known: list[list[int]], positives_E: np.ndarray) -> float:
    """Of the items to be found among all that their users did not meet; ties count against them."""
    found = 0.0
    for user_D, met, positive in zip(users_E_D, known, positives_E, strict=True):
        scores_N = items_N_D @ user_D
        ahead_N = scores_N >= scores_N[positive]
        ahead_N[[0, positive, *met]] = False
        rank = 1 + int(ahead_N.sum())
        found += 1 / np.log2(1 + rank) if rank <= 10 else 0.0
    return found / len(users_E_D)


def ordered(items_N_D: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """(N+1, D) by the numbers that tokens are, row 0 zeros."""
    result = np.zeros_like(items_N_D)
    result[[int(token) for token in tokens[1:]]] = items_N_D[1:]
    return result


def main(arguments: argparse.Namespace) -> None:
    """Train, and write the best epoch's vectors."""
    sys.argv = sys.argv[:1]  # RecBole reads them, too
    os.chdir(arguments.folder)  # where it leaves its logs
    config = Config(model=arguments.model, dataset=arguments.folder.name, config_dict=settings(arguments))
    init_seed(config["seed"], reproducibility=True)
    dataset = create_dataset(config)
    train, validation, test = data_preparation(config, dataset)
    model = get_model(config["model"])(config, train.dataset)
    trainer = Trainer(config, model)
    tokens = dataset.field2id_token["item_id"]
    known = [[int(item) for item in line.split()] for line in (arguments.folder / "known.txt").open()]
    positives_E = tokens[validation.dataset.inter_feat["item_id"].numpy()].astype(int)
    best, since, started = -1.0, 0, time.process_time()
    for epoch in range(1, arguments.epochs + 1):
        loss = trainer._train_epoch(train, epoch)
        if epoch % arguments.validate_every:
            continue
        items_N_D = ordered(model.item_embedding.weight.detach().numpy(), tokens)
        users_E_D = users_of(model, validation.dataset)
        figure = ndcg_at_10(users_E_D, items_N_D, known, positives_E)
        print(f"epoch {epoch} · loss {loss:.4f} · validation {figure:.4f} · cpu {time.process_time() - started:.0f} s")
        since = 0 if figure > best else since + 1
        if figure > best:
            best, path = figure, arguments.folder / f"{arguments.name}.{arguments.seed}.npz"
            np.savez(path, items=items_N_D, validation=users_E_D, test=users_of(model, test.dataset))
        if since >= arguments.patience:
            break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--model", choices=["SASRec", "GRU4Rec"], default="SASRec")
    parser.add_argument("--loss", choices=["CE", "BPR"], default="CE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedding-size", type=int, default=50)
    parser.add_argument("--dropout", type=float, help="RecBole's if not given: 0.5 of SASRec, 0.3 of GRU4Rec")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--validate-every", type=int, default=2)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--name", required=True, help="of the result")
    main(parser.parse_args())
