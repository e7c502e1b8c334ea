// The pages work without this script: it adds buttons that copy, and keeps relative times right.
"use strict";

function copyButton(source) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy " + source.textContent.trim().slice(0, 40));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  source.after(button);
}

// A token is not kept by the page when somebody goes on: going back shows an empty box.
function forgetToken() {
  const token = document.getElementById("token");
  if (token && token.matches("code")) token.textContent = "";
}

const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const words = new Intl.RelativeTimeFormat("en", { numeric: "always" });

function tell(time) {
  const seconds = (Date.parse(time.dateTime) - Date.now()) / 1000;
  const [unit, size] = units.find((one) => Math.abs(seconds) >= one[1]) || units[5];
  time.textContent = words.format(Math.trunc(seconds / size), unit);
}

if (navigator.clipboard) document.querySelectorAll("[data-copy]").forEach(copyButton);
addEventListener("pagehide", forgetToken);
const times = document.querySelectorAll("time[title]");
setInterval(() => times.forEach(tell), 30000);
