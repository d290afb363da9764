"""The policy, the model that is trained to answer: loading, adapters, sampling."""
