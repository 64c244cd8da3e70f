"""What cells, stems and heads are made of: convolutions, norms, dropout, pooling."""
