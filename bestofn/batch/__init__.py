"""Selection over datasets: durable rows, exports."""
