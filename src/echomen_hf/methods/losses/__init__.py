"""Methods that differ from EchoMEN in their loss."""
