"""The labels of a turn, those of the WASSA CONV-turn task, in the order of every array of them."""

# Emotion is its intensity, 0 to 5; polarity is 0 (positive) to 2 (negative); empathy 0 to 5.
LABELS = ("emotion", "polarity", "empathy")
# The columns of polarity and empathy in an array of labels, shape (..., 3).
POLARITY, EMPATHY = LABELS.index("polarity"), LABELS.index("empathy")
