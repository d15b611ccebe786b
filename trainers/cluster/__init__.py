"""The workers of a training: who they are, how they meet, and what they agree on."""
