import "./app.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { app } from "./state/app.svelte";

void app.begin();
mount(App, { target: document.getElementById("app") as HTMLElement });
