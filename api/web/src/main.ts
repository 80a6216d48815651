import { mount } from "svelte";
import App from "./App.svelte";
import "./styles.css";
import { startLanguage } from "./lib/language.svelte";
import { session } from "./lib/session.svelte";

const target = document.getElementById("page");
if (target) {
  await Promise.all([startLanguage(), session.start()]);
  mount(App, { target });
}
