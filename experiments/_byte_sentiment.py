"""Synthetic byte sentiment: reviews of a few clauses, whose label is the sign of their verdicts.

    "the acting was superb. its plot felt not dull. ..."      label 1 = more praise than blame

A clause praises or blames with one of a few words, and "not" turns it round. The number of clauses
is odd, so there is no draw. No review is drawn twice, so none is in both parts. Words of praise and
of blame are equally many of each length: a review's length says nothing of its label.

One trap: this is no natural language. It shows that a model trains, and how fast, not how well
either kernel reads; its letters alone already tell the label of some 64 % of the reviews of 96
bytes (:func:`letter_accuracy`).
"""

import hashlib

import numpy as np
from jaxtyping import Int

from experiments._text_data import Texts, ids
from meanfield import checks

ARTICLES = ("the", "its", "this", "that")
SUBJECTS = (
    "acting", "plot", "music", "ending", "script", "cast", "film", "humour", "story", "pace",
    "sound", "camera", "hero", "style", "finale", "tempo",
)  # fmt: skip
VERBS = ("was", "is", "felt", "got")
PRAISE = ("superb", "lovely", "great", "brilliant", "moving", "clever", "fine", "perfect")
BLAME = ("stupid", "boring", "awful", "senseless", "clumsy", "feeble", "dull", "tedious")
NEGATED = 0.25
"""Share of clauses with "not"."""
LONGEST_CLAUSE = len("this humour felt not brilliant.")
CLAUSES = 2 * 2 * len(PRAISE) * len(ARTICLES) * len(SUBJECTS) * len(VERBS)
"""Different clauses."""


def byte_sentiment(*, reviews: int, test_reviews: int, length: int, seed: int = 0) -> Texts:
    """Synthetic reviews, as bytes.

    Args:
        reviews: Training reviews.
        test_reviews: Test reviews.
        length: Ids of a review; it holds as many clauses as surely fit.
        seed: Seed of all of them.

    Raises:
        ValueError: If a number is not positive, not one clause fits, or so many different reviews
            do not exist.

    >>> bytes(byte_sentiment(reviews=1, test_reviews=1, length=32).x_train[0, :7] - 1)
    b'this sc'
    """
    checks.count("length", length, least=LONGEST_CLAUSE)
    asked = checks.count("reviews", reviews) + checks.count("test_reviews", test_reviews)
    if length < _fits(3) and asked > CLAUSES // 2:
        raise ValueError(
            f"reviews and test_reviews must be at most {CLAUSES // 2} together, got {asked}: a "
            f"review of {length} bytes holds one clause, and no review is drawn twice; raise "
            f"length to {_fits(3)} or ask for fewer"
        )
    rng = np.random.default_rng(seed)
    # A dict keeps the order in which its keys came, and each once.
    labels: dict[bytes, int] = {}
    while len(labels) < asked:
        text, label = _review(rng, length)
        labels[text] = label
    # The short ones are used up first: in this order the test part would hold longer reviews.
    every = list(labels.items())
    drawn = [every[int(place)] for place in rng.permutation(asked)]
    x = np.stack([ids(text, length) for text, _ in drawn])
    y = np.array([label for _, label in drawn], np.int32)
    name = f"synthetic byte sentiment ({reviews:,} training, {test_reviews:,} test reviews)"
    sha256 = hashlib.sha256(x.astype("<i4").tobytes() + y.astype("<i4").tobytes()).hexdigest()
    return Texts(
        *(x[:reviews], y[:reviews], x[reviews:], y[reviews:]), name=name, checksums={name: sha256}
    )


def letter_accuracy(texts: Texts, /) -> float:
    """Test accuracy of least squares on the counts of bytes: what reading no word at all gives.

    Args:
        texts: Labelled reviews.

    >>> 0.4 < letter_accuracy(byte_sentiment(reviews=200, test_reviews=100, length=64)) < 0.9
    True
    """
    train, test = (_counts(x) for x in (texts.x_train, texts.x_test))
    # A little ridge: bytes that hardly occur have no weight of their own.
    gram = train.T @ train + np.eye(train.shape[1])
    weights = np.linalg.solve(gram, train.T @ (2.0 * texts.y_train - 1))
    return float(np.mean((test @ weights > 0) == (texts.y_test == 1)))


def _counts(x: Int[np.ndarray, "n t"]) -> np.ndarray:
    counts = np.stack([np.bincount(row, minlength=257) for row in x]).astype(float)
    counts[:, 0] = 1.0
    return counts


def _fits(clauses: int) -> int:
    """Bytes into which so many clauses surely fit, with spaces between them."""
    return clauses * (LONGEST_CLAUSE + 1) - 1


def _review(rng: np.random.Generator, length: int) -> tuple[bytes, int]:
    fitting = (length + 1) // (LONGEST_CLAUSE + 1)
    clauses = 1 + 2 * int(rng.integers(0, (fitting + 1) // 2))
    praises = rng.integers(0, 2, clauses)
    text = " ".join(_clause(rng, praise=bool(praise)) for praise in praises)
    return text.encode(), int(2 * praises.sum() > clauses)


def _clause(rng: np.random.Generator, *, praise: bool) -> str:
    negated = rng.random() < NEGATED
    words = PRAISE if praise != negated else BLAME
    # A choice among strings by numpy is slow.
    article, subject, verb, word = (
        kind[int(rng.integers(len(kind)))] for kind in (ARTICLES, SUBJECTS, VERBS, words)
    )
    return f"{article} {subject} {verb} {'not ' if negated else ''}{word}."
