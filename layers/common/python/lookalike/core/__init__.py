"""Pure logic: numpy, faiss and PIL only. No boto3, no environment, no clock, no randomness."""
