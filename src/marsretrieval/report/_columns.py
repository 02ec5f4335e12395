"""Which figures stand in which column of a table, where a result keeps them, and what is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["COLUMNS", "MAIN", "MORE", "Column"]


@dataclass(frozen=True, slots=True)
class Column:
    """A figure: its heading, and where each protocol keeps it ("best.f1"); percent or as it is.
    better: 1 the higher, -1 the lower, 0 neither. names: where the protocols have two figures in
    one column, what each is called."""

    heading: str
    published: str | None
    strict: str | None
    percent: bool = True
    better: int = 1
    names: tuple[str, str] | None = None

    def key(self, protocol: str) -> str | None:
        return self.published if protocol == "published" else self.strict

    def name(self, protocol: str) -> str:
        if self.names is None:
            return self.heading
        return self.names[protocol != "published"]


def _both(heading: str, key: str, *, percent: bool = True, better: int = 1) -> Column:
    return Column(heading, key, key, percent, better)


# Task to the parts of its table: (part, columns).
COLUMNS: Mapping[str, Sequence[tuple[str, Sequence[Column]]]] = {
    "paired-image-text": [
        (
            direction,
            [
                _both("R@1", f"{key}_r1"),
                _both("R@10", f"{key}_r10"),
                _both("MRR", f"{key}_mrr"),
                _both("MedR", f"{key}_medr", percent=False, better=-1),
            ],
        )
        for direction, key in (("image to text", "i2t"), ("text to image", "t2i"))
    ],
    "landform": [
        (
            "",
            [
                _both("mAP", "mAP"),
                _both("nDCG@10", "ndcg@10"),
                _both("Hit@10", "hit@10"),
                _both("R-Prec", "r_precision"),
            ],
        )
    ],
    "geolocalization": [
        (
            "",
            [
                Column("AUPRC / AP", "auprc", "average_precision", names=("AUPRC", "AP")),
                Column("ceiling", None, "ceiling.average_precision", better=0),
                _both("best F1", "best.f1"),
                _both("at K", "best.k", percent=False, better=0),
            ],
        )
    ],
}

# What a table of models has no room for.
MORE: Mapping[str, Sequence[Column]] = {
    "geolocalization": [
        _both("precision at K", "best.precision"),
        _both("recall at K", "best.recall"),
        Column("AP / ceiling", None, "normalised"),
        Column("ceiling of F1", None, "ceiling.f1", better=0),
        Column("precision by chance", None, "chance_precision", better=0),
        Column("relevant tiles", None, "relevant_tiles", percent=False, better=0),
    ]
}

# The strict figure that orders the models of a table.
MAIN: Mapping[str, str] = {
    "paired-image-text": "t2i_mrr",
    "landform": "mAP",
    "geolocalization": "average_precision",
}
