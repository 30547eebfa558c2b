"""Other ways to shape a latent for driving, each on a page, trained on the same cache by the same loop.

`table.RIVALS` names them; `training.train_rival` makes a checkpoint of one; `eval/rivals.py` compares them. None of
them is shipped. Some use what the shipped model may not: pixels or truth as targets; the table says which.
"""
