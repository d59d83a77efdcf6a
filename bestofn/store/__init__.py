"""What is kept on disk: the pool row, durable appends, scores."""
