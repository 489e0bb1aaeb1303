"""Moving files: what is moved where is planned here, the courier moves it under the owner's account."""
