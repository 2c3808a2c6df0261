"""The replicated store: transactions over typed resources, agreed on by a majority of voters."""
