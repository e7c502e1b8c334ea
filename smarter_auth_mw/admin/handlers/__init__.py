"""What each operation does: it calls the write side or the lists, and answers with their documents."""
