"""The process that plays AWS: moto, made durable."""
