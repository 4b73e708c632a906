"""What a bucket, a credential and this machine really do, judged; and what a thief could do with them."""
