// Bundle the page into the folder given as argument (default: the package's static folder).
import { build } from "esbuild";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "../src/marsretrieval/web/static"));

await mkdir(out, { recursive: true });
await build({
  entryPoints: { app: join(here, "src/main.ts") },
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: out,
  legalComments: "none",
  loader: { ".css": "css" },
  logLevel: "warning",
});
// The colours are those of the other pages: the template of their style sheet is the one source.
const template = join(here, "../src/marsretrieval/html/templates/colours.css.j2");
const colours = await readFile(template, "utf8");
const macro = (name) => {
  const body = colours.match(new RegExp(`macro ${name}\\(\\) %}([^{]*){%- endmacro`))?.[1];
  if (!body) throw new Error(`${template}: no macro ${name}`);
  return body.trim().replace(/\s+/g, " ");
};
const palette =
  `:root{${macro("dark")}}` +
  `@media(prefers-color-scheme:light){:root:not([data-theme=dark]){${macro("light")}}}` +
  `:root[data-theme=light]{${macro("light")}}\n`;
await writeFile(join(out, "app.css"), palette + (await readFile(join(out, "app.css"), "utf8")));
await copyFile(join(here, "src/index.html"), join(out, "index.html"));
// The licences of what is bundled travel with it.
const texts = [];
for (const name of ["ol", "rbush", "quickselect"]) {
  for (const file of ["LICENSE.md", "LICENSE"]) {
    try {
      texts.push(`${name}\n\n${await readFile(join(here, "node_modules", name, file), "utf8")}`);
      break;
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
}
await writeFile(join(out, "LICENSES.txt"), texts.join("\n\n"));
