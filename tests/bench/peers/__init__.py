"""What tfwatch is compared with: the programs and short scripts that people deliver ZIPs with otherwise.

Each script says on stderr when it listens, and prints the name of each ZIP on stdout once it is delivered
and stored. What it needs to know stands in its environment: `OUTBOX`, `SUBMITTED`, `DELIVERED`, `PORTAL`, `API_KEY`,
`ENDPOINT`, `BUCKET`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`.
"""
