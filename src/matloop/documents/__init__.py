"""What flows: frozen documents, from the campaign file to a decision."""
