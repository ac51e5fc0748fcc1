"""What the engines by vLLM share: how it is opened here, and requests and replies in its terms."""
