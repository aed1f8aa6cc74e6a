"""What a round did: report.json, contact sheets, held-out photographs."""
