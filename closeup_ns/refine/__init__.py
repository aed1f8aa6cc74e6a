"""What makes a rendered view better, and what keeps a worse one out."""
