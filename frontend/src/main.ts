// Start the page.

import { App } from "./app.js";
import { listen } from "./controls.js";
import "./style.css";

const app = new App();
declare global {
  interface Window {
    marsMap: App;
  }
}
window.marsMap = app; // for the console and for tests
listen(app);
app.start().catch((error: unknown) => app.problem(error));
