"""The board: a line an encoding, with its costs, how far it holds, what it uses, a verdict."""
