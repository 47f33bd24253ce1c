// Sends twenty calls at the same time. The gateway holds the price of each call while it
// runs, so it passes only as many as the balance can pay.
const calls = 20;
const button = document.querySelector("#twenty");
const result = document.querySelector("#twenty-result");

async function call() {
	const response = await fetch(button.dataset.model, { method: "POST" });
	return response.status;
}

async function showBalance() {
	const response = await fetch(button.dataset.reread, { method: "POST" });
	const user = await response.json();
	document.querySelector("#balance").textContent = user.balance.value;
	return user.balance.value;
}

async function sendAll() {
	button.disabled = true;
	result.textContent = `${calls} calls are running…`;
	try {
		const statuses = await Promise.all(Array.from({ length: calls }, call));
		const count = (wanted) => statuses.filter((status) => status === wanted).length;
		const balance = await showBalance();
		result.textContent = `${count(200)} of ${calls} calls were answered, and ${count(402)} got 402. The balance is ${balance}.`;
	} catch {
		result.textContent = "The calls did not work. Load the page again.";
	}
	button.disabled = false;
}

button.addEventListener("click", sendAll);
button.disabled = false;
