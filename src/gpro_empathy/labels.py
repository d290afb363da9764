"""The labels of a turn, those of the WASSA CONV-turn task, and the marks of an answer."""

# The labels of a turn, in the order of every array of them. Emotion is its intensity, 0 to 5;
# polarity is 0 (positive) to 2 (negative); empathy 0 to 5.
LABELS = ("emotion", "polarity", "empathy")
# The columns of polarity and empathy in an array of labels, shape (..., 3).
POLARITY, EMPATHY = LABELS.index("polarity"), LABELS.index("empathy")

# The marks of an answer that was read, in the order of every array of them: sense from 0 (nonsense)
# to 2 (a sensible reply), empathetic 0 or 1, by the rules in data/ratings/README.md.
MARKS = ("sense", "empathetic")
SENSE, EMPATHETIC = range(len(MARKS))
HIGHEST = {"sense": 2, "empathetic": 1}
